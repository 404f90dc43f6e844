"""The ledger role: notices, syncs and totals over HTTP, on Granian's event loop; the books on their own thread.

Everything that changes money is answered after it is durable. The way a click takes never waits for a failing database:
the person is redirected all the same.
"""

from __future__ import annotations

import asyncio
import hmac
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from dsp.audience.store import StoreError
from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.base.token import load_signer
from dsp.catalog.current import current_path
from dsp.catalog.layout import EX_FEE_PPM, EX_ID
from dsp.catalog.snapshot import Snapshot, SnapshotError
from dsp.control.grants import SIGNATURE, SYNC_MAX_BYTES, WANT, decode_request, encode_reply, sign_sync, sync_key
from dsp.ledger.adjust import AdjustmentError
from dsp.ledger.books import Books
from dsp.ledger.bulk import BODY_MAX_BYTES, REFUSALS_TOLD, Answer, Refusal, read_line, split_body
from dsp.ledger.control import MAX_AGE_S, carry_out, decode_order
from dsp.ledger.news import AudienceNews
from dsp.ledger.notices import PATHS, RefusedError, is_progress, parse_query, read_notice
from dsp.ledger.partners import check_partners, landing_url, read_json, read_postback
from dsp.ledger.plan import Plan, plan_of
from dsp.ledger.prices import Prices
from dsp.ledger.spool import Spool
from dsp.ledger.status import metrics_text, totals
from dsp.ledger.sync_grpc import DRAIN_S, sync_server
from dsp.ledger.ticket import Notice
from dsp.ledger.writer import SPOOLED, UnavailableError, Writer
from dsp.log.outcomes import CLICK, IMPRESSION, OUTCOMES, OutcomeWriter

if TYPE_CHECKING:
    from dsp.ledger.match import Matcher

log = logger(__name__)

FORM_MAX_BYTES = 8 << 10
OWED_LIMIT = 20_000
BULK_AT_ONCE = 500  # lines read before others get a turn
PLAN_POLL_S = 0.25
EXIT_FENCED = 75
ROUTES = {*PATHS, "m", "match", "sync", "notices", "control"}  # what metrics tell apart
TEXT = [("content-type", "text/plain; charset=utf-8")]
JSON = [("content-type", "application/json")]
MSGPACK = [("content-type", "application/msgpack")]
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
PIXEL_HEADERS = [("content-type", "image/gif"), ("cache-control", "no-store")]

_RESULTS: dict[bool | str, str] = {True: "new", False: "duplicate", SPOOLED: "spooled"}


def _open_matcher(config: Config) -> Matcher:
    """Imported when it is first needed: a third of what a ledger's start takes, for which notices would wait."""
    from dsp.ledger.match import Matcher

    return Matcher(config)


class LedgerServer:
    """The RSGI application and what it needs. Made on the event loop; `close` drains and flushes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        check_partners(config.ledger.partners)
        self.signer = load_signer(config.path("secrets", "signing.json"))
        self.prices = Prices(config.path("secrets", "price.json"))
        self._owed: deque[Notice] = deque(maxlen=OWED_LIMIT)  # clicks that neither database nor spool could take
        self._snapshot = ""
        self._audience = AudienceNews(config)
        self._matcher: Matcher | None = None  # made when it is first needed: it brings the decoder with it
        self._making = asyncio.Lock()
        self._published: Snapshot | None = None
        self._fees: dict[int, float] = {}  # what an exchange makes of a price of 1
        self.plan = self._current_plan() or Plan([])  # before anything is answered: clicks need to know where to go
        self.requests: Counter[tuple[str, str]] = Counter()  # (path, result)
        self._sync_key = sync_key(self.signer.sync_secret)
        self._outcomes = OutcomeWriter(config.path("log", "outcomes"), "ledger")
        spool = Spool(config.path("spool"), config.ledger.spool_max_bytes)
        self.writer = Writer(self._open_books, self._outcomes, asyncio.get_running_loop(), spool, self._audience)
        self.writer.when_opened(lambda books, _, time_ms: books.adopt(self.plan, time_ms))
        self.when_fenced: Callable[[], None] = lambda: None  # another ledger has taken over: nothing is left to do here
        self._follower = asyncio.create_task(self._follow())

    def _open_books(self) -> Books:
        now_ns, now_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        where = self.config.ledger.database or self.config.path("ledger.db")
        books = Books.open(where, self.config.ledger, mono_ns=now_ns, time_ms=now_ms)
        books.keep_news = True
        return books

    async def close(self) -> None:
        """Finish what waits; everything acknowledged is durable before this, and the outcome log is whole after."""
        self._follower.cancel()
        await self._pay()
        await self._keep_matches()
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self._outcomes.close)
        self._audience.close()

    # --- the plan ----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Adopt each new snapshot within a moment of its publication."""
        while not self.writer.fenced:
            try:
                await self._adopt_current()
            except (UnavailableError, SnapshotError, OSError, KeyError, ValueError) as error:
                self.requests["plan", "failed"] += 1
                log.warning("cannot adopt the snapshot yet", error=repr(error))
            await self._pay()
            await self._keep_matches()
            await asyncio.sleep(PLAN_POLL_S)
            try:
                self.prices.refresh()
            except ValueError as error:
                self.requests["price", "failed"] += 1
                log.warning("keys of encrypted prices not changed", error=str(error))
        self.when_fenced()

    def _current_plan(self) -> Plan | None:
        """The plan of the current snapshot; None where there is none, or none that can be read."""
        path = current_path(self.config)
        try:
            plan = self._read_plan(path) if path is not None else None
        except (SnapshotError, OSError, KeyError, ValueError):
            return None  # the follower tries again, and says why
        self._snapshot = path.name if path is not None else ""
        return plan

    def _read_plan(self, path: Path) -> Plan:
        snapshot = Snapshot.load(path)
        self._audience.attach(snapshot)
        self._published = snapshot
        if snapshot.ex_i.shape[1] > EX_FEE_PPM:
            self._fees = {int(row[EX_ID]): 1.0 + int(row[EX_FEE_PPM]) * 1e-6 for row in snapshot.ex_i}
        if self._matcher is not None:
            self._matcher.attach(snapshot)
        self.prices.expect({x["id"]: x.get("price", "plain") for x in snapshot.meta["exchanges"]})
        return plan_of(snapshot)

    async def _adopt_current(self) -> None:
        path = current_path(self.config)
        if path is None or path.name == self._snapshot:
            return
        plan = await asyncio.to_thread(self._read_plan, path)
        self.plan, self._snapshot = plan, path.name  # first: books that are opened from now on take this one
        try:
            await self.writer.submit(lambda books, _, time_ms: books.adopt(plan, time_ms))
        except UnavailableError:
            self._snapshot = ""
            raise

    # --- requests ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, proto: Any) -> None:
        """One request. RSGI: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md."""
        if scope.proto != "http":
            return
        route, _, token = scope.path[1:].partition("/")
        try:
            if scope.method not in {"GET", "POST"}:
                raise RefusedError(405, "method", "GET or POST")
            if route == "m" and token:
                await self._postback(token, scope, proto)
            elif route == "match" and token:
                await self._match(token, scope, proto)
            elif token and len(route) == 1:
                await self._notice(route, token, scope, proto)
            else:
                await self._other(scope, proto)
        except RefusedError as refusal:
            self.requests[route if route in ROUTES else "other", refusal.reason] += 1
            proto.response_str(refusal.status, TEXT, refusal.text + "\n")
        except UnavailableError as error:
            self.requests[route, "unavailable"] += 1
            proto.response_str(503, [*TEXT, ("retry-after", "1")], f"not booked, please repeat: {error}\n")

    async def _notice(self, route: str, token: str, scope: Any, proto: Any) -> None:
        query = parse_query(scope.query_string)
        if scope.method == "POST" and scope.headers.get("content-length", "0") != "0":
            query |= parse_query((await self._body(scope, proto, FORM_MAX_BYTES)).decode("utf-8", "replace"))
        now_ms = time.time_ns() // 1_000_000
        notice = read_notice(self.signer, route, token, query, now_ms, self.plan.rates, self.prices)
        self._check_sender(scope, [notice])
        if notice.test or is_progress(notice, query):
            self.requests[route, "test" if notice.test else "progress"] += 1
        else:
            try:
                (new,) = await self.writer.book((notice,))
                self.requests[route, _RESULTS[new]] += 1
            except UnavailableError:
                if notice.kind != CLICK:
                    raise
                self._owe(notice)
        if notice.kind == CLICK:
            proto.response_empty(302, [("location", self._landing(notice.ticket.creative, token))])
        elif notice.kind == IMPRESSION:
            proto.response_bytes(200, PIXEL_HEADERS, PIXEL)
        else:
            proto.response_empty(204, [])

    async def _postback(self, name: str, scope: Any, proto: Any) -> None:
        """/m/NAME: a measurement partner's call (`dsp.ledger.partners`)."""
        partner = next((p for p in self.config.ledger.partners if p.name == name), None)
        if partner is None:
            raise RefusedError(404, "path", "no such partner: name it in ledger.partners")
        query = parse_query(scope.query_string)
        if scope.method == "POST" and scope.headers.get("content-length", "0") != "0":
            body = await self._body(scope, proto, FORM_MAX_BYTES)
            json = (scope.headers.get("content-type") or "").startswith("application/json")
            query |= read_json(body) if json else parse_query(body.decode("utf-8", "replace"))
        notice = read_postback(self.signer, partner, query, time.time_ns() // 1_000_000, self.plan.rates, self._fees)
        if notice is None or notice.test:
            self.requests["m", "ignored" if notice is None else "test"] += 1
        else:
            (new,) = await self.writer.book((notice,))
            self.requests["m", _RESULTS[new]] += 1
        proto.response_empty(204, [])

    async def _match(self, name: str, scope: Any, proto: Any) -> None:
        """/match/EXCHANGE: a browser on its way between us and an exchange (`dsp.ledger.match`)."""
        async with self._making:
            if self._matcher is None:
                self._matcher = await asyncio.to_thread(_open_matcher, self.config)
                if self._published is not None:
                    self._matcher.attach(self._published)
        done = self._matcher.answer(name, parse_query(scope.query_string), scope.headers.get("cookie") or "")
        if done is None:
            raise RefusedError(404, "path", "no such exchange")
        self.requests["match", done.result] += 1
        cookie = [("set-cookie", done.cookie)] if done.cookie else []
        if done.location:
            proto.response_empty(302, [("location", done.location), ("cache-control", "no-store"), *cookie])
        else:
            proto.response_bytes(200, [*PIXEL_HEADERS, *cookie], PIXEL)

    async def _keep_matches(self) -> None:
        """Write the matches that wait."""
        if self._matcher is None:
            return
        try:
            await asyncio.to_thread(self._matcher.table.flush)
        except (StoreError, OSError) as error:
            self.requests["match", "failed"] += 1
            print(f"ledger: matches not written yet: {error}", file=sys.stderr, flush=True)

    def _owe(self, click: Notice) -> None:
        """A person goes to the landing page whatever happens here; the click is booked when that can be done."""
        if len(self._owed) == OWED_LIMIT:
            self.requests["c", "lost"] += 1
        self._owed.append(click)
        self.requests["c", "owed"] += 1

    async def _pay(self) -> None:
        """Book the clicks that are owed."""
        clicks, self._owed = self._owed, deque(maxlen=OWED_LIMIT)
        try:
            if clicks:
                await self.writer.book(tuple(clicks))
        except UnavailableError:
            self._owed.extendleft(reversed(clicks))

    def _check_sender(self, scope: Any, notices: list[Notice]) -> None:
        """Who shows an exchange's bearer token may report on that exchange's bids only."""
        shown = scope.headers.get("authorization")
        if not shown:
            return
        exchange = self.plan.senders.get(shown.removeprefix("Bearer "))
        if exchange is None or any(notice.ticket.exchange != exchange for notice in notices):
            raise RefusedError(403, "exchange", "the authorization is not that of the exchange this bid was sent to")

    async def _bulk(self, scope: Any, proto: Any) -> bytes:
        """POST /notices (`dsp.ledger.bulk`)."""
        body = await self._body(scope, proto, BODY_MAX_BYTES)
        lines, answer = split_body(body, scope.headers.get("content-type") or ""), Answer()
        notices: list[Notice] = []
        for i, line in enumerate(lines, 1):
            if i % BULK_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                notice = read_line(self.signer, line, time.time_ns() // 1_000_000, self.plan.rates, self.prices)
                self._check_sender(scope, [notice])
            except RefusedError as refusal:
                answer.refused += 1
                self.requests["notices", refusal.reason] += 1
                if answer.refused <= REFUSALS_TOLD:
                    answer.refusals.append(Refusal(i, refusal.status, refusal.reason))
                continue
            if notice.test:
                answer.tests += 1
            else:
                notices.append(notice)
        results = await self.writer.book(notices) if notices else []
        answer.booked = sum(result is True for result in results)
        answer.spooled = sum(result == SPOOLED for result in results)
        answer.duplicates = len(results) - answer.booked - answer.spooled
        self.requests["notices", "new"] += answer.booked
        self.requests["notices", "duplicate"] += answer.duplicates
        self.requests["notices", "spooled"] += answer.spooled
        return msgspec.json.encode(answer)

    async def _body(self, scope: Any, proto: Any, most: int) -> bytes:
        length = scope.headers.get("content-length") or ""
        if not length.isdigit() or int(length) > most:
            raise RefusedError(413, "length", f"a content-length of up to {most} is needed")
        return bytes(await proto())

    def _landing(self, creative: int, token: str) -> str:
        """Where a click goes: from the catalog by creative id, never from the request."""
        url = self.plan.landings.get(creative, "")
        if not url.startswith(("https://", "http://")):
            raise RefusedError(404, "landing", "this ad has no landing page any more")
        return landing_url(url, token)

    async def _other(self, scope: Any, proto: Any) -> None:
        path = scope.path
        if path == "/sync" and scope.method == "POST":
            proto.response_bytes(200, MSGPACK, await self._sync(scope, proto))
        elif path == "/notices" and scope.method == "POST":
            proto.response_bytes(200, JSON, await self._bulk(scope, proto))
        elif path == "/control" and scope.method == "POST":
            proto.response_bytes(200, JSON, await self._control(scope, proto))
        elif path == "/healthz":
            proto.response_str(200, TEXT, "ok\n")
        elif path == "/readyz":
            ready = self.writer.ready
            proto.response_str(200 if ready else 503, TEXT, "ready\n" if ready else "the books are not open\n")
        elif path == "/totals":
            body = await self.writer.submit(lambda books, _m, _t: msgspec.json.encode(totals(books)))
            proto.response_bytes(200, JSON, body)
        elif path == "/metrics":
            text = await self.writer.submit(
                lambda books, _m, _t: metrics_text(books, self.writer, self.requests.copy(), self._outcomes.dropped)
            )
            proto.response_str(200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
        else:
            raise RefusedError(
                404, "path", f"nothing here; notices are /n/ /b/ /l/ /c/ /i/ /p/ ({', '.join(OUTCOMES)})"
            )

    async def _sync(self, scope: Any, proto: Any) -> bytes:
        body = await self._body(scope, proto, SYNC_MAX_BYTES)
        return await self.sync(body, scope.headers.get(SIGNATURE) or "")

    async def sync(self, body: bytes, signature: str) -> bytes:
        """A worker's sync, however it came. Raises `RefusedError` or `UnavailableError`."""
        self._check_signature(body, signature)
        try:
            request = decode_request(body)
        except msgspec.MsgspecError as error:
            raise RefusedError(400, "sync", str(error)) from None
        if len(request.wants) % WANT.itemsize:
            raise RefusedError(400, "sync", "wants are not whole records")
        reply = await self.writer.submit(lambda books, mono_ns, time_ms: books.sync(request, mono_ns, time_ms))
        self.requests["sync", "ok"] += 1
        return encode_reply(reply)

    async def _signed(self, scope: Any, proto: Any, most: int) -> bytes:
        body = await self._body(scope, proto, most)
        self._check_signature(body, scope.headers.get(SIGNATURE) or "")
        return body

    def _check_signature(self, body: bytes, signature: str) -> None:
        if not hmac.compare_digest(signature.encode(), sign_sync(self._sync_key, body).encode()):
            raise RefusedError(403, "signature", f"{SIGNATURE} does not match")

    async def _control(self, scope: Any, proto: Any) -> bytes:
        """POST /control: an operator's order (`dsp.ledger.control`)."""
        body = await self._signed(scope, proto, FORM_MAX_BYTES)
        try:
            order = decode_order(body)
        except msgspec.MsgspecError as error:
            raise RefusedError(400, "order", str(error)) from None
        if abs(order.at_s - time.time()) > MAX_AGE_S:
            raise RefusedError(400, "order", "the order is too old: check the clocks")
        try:
            answer = await self.writer.submit(lambda books, _, time_ms: carry_out(order, books, time_ms))
        except AdjustmentError as error:
            raise RefusedError(400, "adjustment", str(error)) from None
        return msgspec.json.encode(answer)


async def serve(config: Config) -> None:
    """Run the role until SIGTERM or SIGINT; then stop listening, finish, flush."""
    loop = asyncio.get_running_loop()
    app = LedgerServer(config)
    server = Server(
        app,
        address=config.ledger.host,
        port=config.ledger.port,
        interface=Interfaces.RSGI,
        log_enabled=False,
        websockets=False,
    )
    app.when_fenced = server.stop
    syncs = sync_server(f"{config.ledger.host}:{config.ledger.grpc_port}", app.sync)
    await syncs.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    log.info("serving", port=config.ledger.port)
    try:
        await server.serve()
    finally:
        await syncs.stop(DRAIN_S)
        await app.close()
    log.info("ended", fenced=app.writer.fenced)
    if app.writer.fenced:
        raise SystemExit(EXIT_FENCED)


def run_ledger(config: Config) -> None:
    """The ledger role in this process, blocking."""
    sys.setswitchinterval(0.001)  # loop and books take turns often: neither waits 5 ms for the other
    uvloop.run(serve(config))
