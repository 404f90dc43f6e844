"""An exchange's certification of a bidder over HTTP: protocol, malformed input, blocks, macros, notices, timing.

It knows the bidder by its URL alone. Everything it sends is marked ``test``, so that notices of what it wins cost
nothing. One check is one question with one answer: passed, failed (with what was seen), or skipped where an earlier
answer is missing; the score is passed of passed and failed.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import msgspec

from dsp.market.certify_cases import BASE, HARMLESS, changed, malformed, refusable, several
from dsp.market.certify_response import NOTICE_URLS, Json, bids_of, filled, judge

PATIENCE_S = 5.0
NOTICE_S = 1.0
SHARE_IN_TIME = 0.99
RETRIES = 3  # a bidder need not bid each time
Outcome = Literal["passed", "failed", "skipped"]


class Check(msgspec.Struct, frozen=True):
    """One question and its answer."""

    area: str
    name: str
    about: str
    outcome: Outcome
    seen: str = ""


class Settings(msgspec.Struct, frozen=True):
    """How to certify."""

    url: str
    token: str = ""
    base: Json = msgspec.field(default_factory=lambda: BASE)
    rate: float = 50.0  # requests a second while timing
    seconds: float = 4.0
    notices: bool = True


class Answer(msgspec.Struct):
    """What came back; status 0: nothing within `PATIENCE_S`."""

    status: int
    took_ms: float
    headers: Any = None
    raw: bytes = b""

    @property
    def value(self) -> Any:
        """The body as JSON, None where it isn't."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


class Certifier:
    """See the module; `run` asks everything once."""

    def __init__(self, settings: Settings, tell: Callable[[str], None] = lambda area: None) -> None:
        self.settings = settings
        self.checks: list[Check] = []
        self._tell = tell
        self._numbers = itertools.count(1)
        self._bid: Json = {}  # an answer to the base request, and its seat
        self._seat = ""
        headers = {"content-type": "application/json", "x-openrtb-version": "2.6", "accept-encoding": "identity"}
        if settings.token:
            headers["authorization"] = f"Bearer {settings.token}"
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
        self._client = httpx.Client(headers=headers, timeout=PATIENCE_S, limits=limits)

    def run(self) -> list[Check]:
        """All checks."""
        for area in (self._protocol, self._malformed, self._blocks, self._macros, self._notices, self._timing):
            self._tell(area.__name__.strip("_"))
            area()
        self._client.close()
        return self.checks

    # --- asking -------------------------------------------------------------------------------------------------------

    def send(self, body: bytes, headers: dict[str, str] | None = None, method: str = "POST", path: str = "") -> Answer:
        """One call; never raises for what the bidder does."""
        began = time.perf_counter()
        try:
            reply = self._client.request(method, self.settings.url + path, content=body, headers=headers)
        except httpx.HTTPError as error:
            return Answer(0, (time.perf_counter() - began) * 1e3, {}, str(error).encode())
        return Answer(reply.status_code, (time.perf_counter() - began) * 1e3, reply.headers, reply.content)

    def ask(self, change: Json | None = None, imp: Json | None = None) -> tuple[Json, Answer]:
        """The base request, changed, and what came back."""
        request = changed(self.settings.base, next(self._numbers), change or {}, imp)
        return request, self.send(json.dumps(request).encode())

    def note(self, area: str, name: str, about: str, problems: list[str] | None) -> bool:
        """Keep an answer: None skips, no problem passes."""
        outcome: Outcome = "skipped" if problems is None else "failed" if problems else "passed"
        self.checks.append(Check(area, name, about, outcome, "; ".join(problems or [])[:400]))
        return outcome == "passed"

    @staticmethod
    def faults(request: Json, answer: Answer) -> list[str]:
        """What is wrong with an answer to a proper request."""
        if answer.status == 204:
            return ["204 with a body"] if answer.raw else []
        if answer.status != 200:
            return [f"status {answer.status}" if answer.status else "no answer"]
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        problems = [] if kind == "application/json" else [f"content-type {kind!r}"]
        return problems + judge(request, answer.value)

    # --- the areas ----------------------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        say = self.note
        for _ in range(RETRIES):
            request, answer = self.ask()
            found = bids_of(answer.value) if isinstance(answer.value, dict) else []
            if found:
                self._bid, self._seat = found[0], str(answer.value["seatbid"][0].get("seat") or "")
                break
        say("protocol", "answer", "a proper request is answered properly", self.faults(request, answer))
        say("protocol", "bids", "it bids on the base request", [] if self._bid else [f"status {answer.status}, no bid"])
        for name, about, change, imp in HARMLESS:
            say("protocol", name, about, self.faults(*self.ask(change, imp)))
        many = several(changed(self.settings.base, 0, {}), 8)
        say("protocol", "many-imps", "eight imps in a request", self.faults(many, self.send(json.dumps(many).encode())))
        body = json.dumps(request).encode()
        packed = self.send(gzip.compress(body), {"content-encoding": "gzip"})
        say("protocol", "gzip-in", "a request in gzip", self.faults(request, packed))
        unpacked = self.send(body, {"accept-encoding": "gzip"})
        say("protocol", "gzip-out", "an answer that may be gzip", self.faults(request, unpacked))
        typed = self.send(body, {"content-type": "application/json; charset=utf-8"})
        say("protocol", "charset", "a content type with a charset", self.faults(request, typed))
        status = self.send(b"", method="GET").status
        say("protocol", "get", "GET is no way to ask", [] if 400 <= status < 500 else [f"status {status}"])
        status = self.send(body, path="/certifier/no/such/path").status
        say("protocol", "no-path", "an unknown path", [] if 400 <= status < 500 else [f"status {status}"])
        refused: list[str] | None = None
        if self.settings.token:
            status = self.send(body, {"authorization": "Bearer certifier-wrong"}).status
            refused = [] if status in (401, 403) else [f"status {status}"]
        say("protocol", "token", "a wrong token", refused)

    def _malformed(self) -> None:
        for name, body, headers in malformed(self.settings.base):
            answer = self.send(body, headers)
            problems = []
            if answer.status == 0 or answer.status >= 500:
                problems.append(f"status {answer.status or 'none'}: {answer.raw[:100]!r}")
            elif answer.status == 200 and not isinstance(answer.value, dict):
                problems.append("200 with a body that is no JSON object")
            elif answer.status == 200 and bids_of(answer.value):
                problems.append("a bid")
            if not problems:
                problems = [f"afterwards: {text}" for text in self.faults(*self.ask())]
            self.note("malformed", name, "a body that is no request: refused, and the next one answered", problems)

    def _blocks(self) -> None:
        if not self._bid:
            self.note("blocks", "all", "what a request forbids", None)
            return
        for name, about, change, imp in refusable(self.settings.base, self._bid, self._seat):
            problems: list[str] = []
            for _ in range(RETRIES):
                request, answer = self.ask(change, imp)
                problems += self.faults(request, answer)
                if name in ("floor-high", "currency", "private", "size", "medium", "wseat") and answer.status == 200:
                    problems += ["a bid"] if bids_of(answer.value) else []
            self.note("blocks", name, about, list(dict.fromkeys(problems)))

    def _macros(self) -> None:
        if not self._bid:
            self.note("macros", "all", "macros in URLs and markup", None)
            return
        urls = {name: str(self._bid[name]) for name in NOTICE_URLS if self._bid.get(name)}
        told = [] if urls or self._bid.get("adm") else ["none"]
        self.note("macros", "notice", "a notice that tells what was charged", told)
        priced = [name for name, text in {**urls, "adm": str(self._bid.get("adm", ""))}.items() if "PRICE" in text]
        self.note("macros", "price", "the price macro is in a notice or the markup", [] if priced else ["nowhere"])
        left = [n for n, text in urls.items() if re.search(r"\$\{|%%|\s", filled(text, {"AUCTION_PRICE": "1"}))]
        self.note("macros", "filled", "filled macros leave a URL", [f"{name} does not" for name in left])

    def _notices(self) -> None:
        urls = {n: str(self._bid[n]) for n in NOTICE_URLS if self._bid.get(n)}
        if not urls or not self.settings.notices:
            self.note("notices", "all", "notices are taken", None)
            return
        price = f"{float(self._bid['price']):.4f}"
        values = {
            "AUCTION_PRICE": price,
            "AUCTION_CURRENCY": "USD",
            "AUCTION_LOSS": "102",
            "AUCTION_MIN_TO_WIN": price,
            "AUCTION_ID": "certify",
            "AUCTION_BID_ID": "1",
            "AUCTION_IMP_ID": "1",
            "AUCTION_SEAT_ID": self._seat,
        }
        for name, url in urls.items():
            once, twice = (self._notice(filled(url, values)) for _ in range(2))
            self.note("notices", name, f"{name} is taken, and within a second", once)
            self.note("notices", f"{name}-again", f"{name} may come twice", twice)
            odd = self._notice(filled(url, {**values, "AUCTION_PRICE": "not-a-price"}), up_to=499)
            self.note("notices", f"{name}-odd", f"{name} with a price that is none is no server's error", odd)

    def _notice(self, url: str, up_to: int = 399) -> list[str]:
        began = time.perf_counter()
        try:
            status = self._client.get(url).status_code
        except httpx.HTTPError as error:
            return [f"{url[:80]}: {error}"]
        took = time.perf_counter() - began
        problems = [] if 200 <= status <= up_to else [f"status {status}"]
        return problems + ([f"took {took:.2f} s"] if took > NOTICE_S else [])

    def _timing(self) -> None:
        tmax_ms = float(self.settings.base.get("tmax", 200))
        gap = 1 / self.settings.rate
        count = max(1, int(self.settings.rate * self.settings.seconds))
        start = time.perf_counter()

        def one(k: int) -> tuple[float, bool]:
            time.sleep(max(0.0, start + k * gap - time.perf_counter()))
            request, answer = self.ask()
            took_ms = answer.took_ms if answer.status else PATIENCE_S * 1e3
            return took_ms, not self.faults(request, answer)

        with ThreadPoolExecutor(16) as pool:
            times, fine = zip(*pool.map(one, range(count)), strict=True)
        in_time = sum(took <= tmax_ms for took in times) / count
        worst = f"{sorted(times)[int(0.99 * (count - 1))]:.1f} ms at p99, {max(times):.1f} ms at most"
        problem = [f"{in_time:.2%} of {count} within tmax {tmax_ms:.0f} ms; {worst}"] if in_time < SHARE_IN_TIME else []
        self.note("timing", "tmax", f"99 % within tmax at {self.settings.rate:.0f}/s", problem)
        unsound = [] if all(fine) else [f"{fine.count(False)} of {count} were not"]
        self.note("timing", "sound", "all of them proper", unsound)
        short = [self.ask({"tmax": 1})[1] for _ in range(5)]
        late = [a for a in short if a.status not in (200, 204) or a.took_ms > tmax_ms]
        self.note(
            "timing", "no-time", "with no time left, a quick no-bid", [f"{len(late)} of 5 were not"] if late else []
        )


def score(checks: list[Check]) -> float:
    """Passed of passed and failed, 0 to 1."""
    counted = [check for check in checks if check.outcome != "skipped"]
    return sum(check.outcome == "passed" for check in counted) / max(1, len(counted))
