"""Identity sync over a browser: ``GET /match/{exchange}``, in both directions.

    ?uid=THEIRS     the exchange tells its id of this browser; our cookie says ours: the pair goes into the match table
    without uid     our page or pixel begins: the browser is sent on to the exchange's address (its `match_url`), which
                    learns our id in it and answers, if it likes, with a call of the first kind

Nothing is set, kept or passed on unless the consent table (`dsp/audience/consent.yaml`) allows a profile to be joined
by the signals of this call: ``gdpr``, ``gdpr_consent``, ``us_privacy``, ``gpp``, ``gpp_sid``, ``pipl``, ``country``, as
exchanges send them. The call is put as a bid request to the decoder and gate of bidding: consent is read one way.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from dsp.audience.consent import JOIN, ConsentGate
from dsp.audience.match import MatchTable
from dsp.base.config import Config
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import FMT_JSON, R_EXCHANGE, R_STATUS, REQUEST_COLUMNS, Batch
from dsp.openrtb.decode import decode_batch
from dsp.openrtb.hashing import hash_text

COOKIE = "dsp_id"
COOKIE_AGE_S = 180 * 86_400
ID_MAX = 256
_OURS = re.compile(r"[A-Za-z0-9_-]{22}")


class Matched(NamedTuple):
    """What to answer: where to send the browser ("" nowhere), the cookie to set ("" none), and the metric's word."""

    location: str
    cookie: str
    result: str


class Matcher:
    """Decides one call after the other; belongs to one thread."""

    def __init__(self, config: Config) -> None:
        self.table = MatchTable(config)
        self._consent = ConsentGate(config.bidder.vendor_id, REQUEST_COLUMNS, hash_text)
        self._batch = Batch(text_bytes=1 << 14)
        self._bits = np.zeros(1, np.int64)
        self._exchanges: dict[str, tuple[int, int, str]] = {}  # name -> index, stable number, its address

    def attach(self, snapshot: Snapshot) -> None:
        """Learn the exchanges of a new catalog."""
        exchanges = snapshot.meta["exchanges"]
        names = [str(x.get("name", "")) for x in exchanges]
        self._consent.attach(names)
        self._exchanges = {
            name: (i, int(x["id"]), str(x.get("match_url", "")))
            for i, (name, x) in enumerate(zip(names, exchanges, strict=True))
            if name
        }

    def answer(self, name: str, query: Mapping[str, str], cookies: str) -> Matched | None:
        """What to do about a call; None where there is no such exchange. ``cookies`` is the request's header."""
        known = self._exchanges.get(name)
        if known is None:
            return None
        index, number, address = known
        theirs = query.get("uid", "")
        if len(theirs) > ID_MAX:
            return Matched("", "", "bad_id")
        if not self._allowed(index, query):
            return Matched("", "", "no_consent")
        ours = read_cookie(cookies)
        cookie = ours or secrets.token_urlsafe(16)
        if not self.table.add(number, cookie, theirs):
            return Matched("", "", "bad_id" if theirs else "full")
        location = "" if theirs or not address else filled(address, cookie, query)
        return Matched(location, "" if ours else cookie_header(cookie), "matched" if theirs else "begun")

    def _allowed(self, index: int, query: Mapping[str, str]) -> bool:
        body = json.dumps(as_request(query)).encode()
        decode_batch(self._batch, [body], [FMT_JSON])
        if self._batch.req[0, R_STATUS] != 0:
            return False
        self._batch.req[0, R_EXCHANGE] = index
        self._consent.run(self._batch.req, self._batch.text, self._batch.pool, 1, self._bits)
        return bool(self._bits[0] & JOIN)


def as_request(query: Mapping[str, str]) -> dict[str, object]:
    """The signals of a call where a bid request has them."""
    regs: dict[str, object] = {name: query[name] for name in ("us_privacy", "gpp") if query.get(name)}
    if query.get("gdpr") in ("0", "1"):
        regs["gdpr"] = int(query["gdpr"])
    if query.get("pipl") in ("0", "1"):
        regs["ext"] = {"pipl": int(query["pipl"])}
    sections = [part for part in query.get("gpp_sid", "").replace(".", ",").split(",") if part.isdigit()]
    if sections:
        regs["gpp_sid"] = [int(part) for part in sections[:16]]
    request: dict[str, object] = {"id": "match", "imp": [{"id": "1"}], "regs": regs}
    if query.get("gdpr_consent"):
        request["user"] = {"consent": query["gdpr_consent"][:4096]}
    if query.get("country"):
        request["device"] = {"geo": {"country": query["country"][:3].upper()}}
    return request


def read_cookie(header: str) -> str:
    """Our id in a Cookie header, "" without one that we could have made."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and _OURS.fullmatch(value):
            return value
    return ""


def cookie_header(cookie: str) -> str:
    """The Set-Cookie value: sent along from other sites' pages, over TLS only, out of reach of scripts."""
    return f"{COOKIE}={cookie}; Max-Age={COOKIE_AGE_S}; Path=/match; Secure; HttpOnly; SameSite=None"


def filled(address: str, cookie: str, query: Mapping[str, str]) -> str:
    """An exchange's address with our id and the consent signals in it, as they came."""
    values = {"uid": cookie, **{name: query.get(name, "") for name in ("gdpr", "gdpr_consent", "us_privacy", "gpp")}}
    for name, value in {**values, "gpp_sid": query.get("gpp_sid", "")}.items():
        address = address.replace(f"{{{name}}}", quote(value, safe=""))
    return address
