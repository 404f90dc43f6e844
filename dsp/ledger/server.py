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
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from dsp.base.config import Config
from dsp.base.token import load_signer
from dsp.catalog.publish import current_path
from dsp.catalog.snapshot import Snapshot, SnapshotError
from dsp.control.grants import decode_request, encode_reply, sign_sync, sync_key
from dsp.ledger.books import Books
from dsp.ledger.notices import PATHS, RefusedError, parse_query, read_notice
from dsp.ledger.plan import Plan, plan_of
from dsp.ledger.status import metrics_text, totals
from dsp.ledger.writer import UnavailableError, Writer
from dsp.log.outcomes import CLICK, IMPRESSION, OUTCOMES, OutcomeWriter

SYNC_MAX_BYTES = 64 << 20
PLAN_POLL_S = 0.25
EXIT_FENCED = 75
ROUTES = {*PATHS, "sync"}  # what metrics tell apart
TEXT = [("content-type", "text/plain; charset=utf-8")]
JSON = [("content-type", "application/json")]
MSGPACK = [("content-type", "application/msgpack")]
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
PIXEL_HEADERS = [("content-type", "image/gif"), ("cache-control", "no-store")]


class LedgerServer:
    """The RSGI application and what it needs. Made on the event loop; `close` drains and flushes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.signer = load_signer(config.path("secrets", "signing.json"))
        self.plan = Plan([])
        self.requests: Counter[tuple[str, str]] = Counter()  # (path, result)
        self._sync_key = sync_key(self.signer.sync_secret)
        self._outcomes = OutcomeWriter(config.path("log", "outcomes"), "ledger")
        self.writer = Writer(self._open_books, self._outcomes, asyncio.get_running_loop())
        self.writer.when_opened(lambda books, _, time_ms: books.adopt(self.plan, time_ms))
        self.when_fenced: Callable[[], None] = lambda: None  # another ledger has taken over: nothing is left to do here
        self._snapshot = ""
        self._follower = asyncio.create_task(self._follow())

    def _open_books(self) -> Books:
        now_ns, now_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        where = self.config.ledger.database or self.config.path("ledger.db")
        return Books.open(where, self.config.ledger, mono_ns=now_ns, time_ms=now_ms)

    async def close(self) -> None:
        """Finish what waits; everything acknowledged is durable before this, and the outcome log is whole after."""
        self._follower.cancel()
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self._outcomes.close)

    # --- the plan ----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Adopt each new snapshot within a moment of its publication."""
        while not self.writer.fenced:
            try:
                await self._adopt_current()
            except (UnavailableError, SnapshotError, OSError, KeyError, ValueError) as error:
                self.requests["plan", "failed"] += 1
                print(f"ledger: cannot adopt the snapshot yet: {error!r}", file=sys.stderr, flush=True)
            await asyncio.sleep(PLAN_POLL_S)
        self.when_fenced()

    async def _adopt_current(self) -> None:
        path = current_path(self.config)
        if path is None or path.name == self._snapshot:
            return
        plan = await asyncio.to_thread(lambda: plan_of(Snapshot.load(path)))
        await self.writer.submit(lambda books, _, time_ms: books.adopt(plan, time_ms))
        self.plan, self._snapshot = plan, path.name

    # --- requests ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, proto: Any) -> None:
        """One request. RSGI: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md."""
        if scope.proto != "http":
            return
        route, _, token = scope.path[1:].partition("/")
        try:
            if scope.method not in {"GET", "POST"}:
                raise RefusedError(405, "method", "GET or POST")
            if token and len(route) == 1:
                await self._notice(route, token, scope.query_string, proto)
            else:
                await self._other(scope, proto)
        except RefusedError as refusal:
            self.requests[route if route in ROUTES else "other", refusal.reason] += 1
            proto.response_str(refusal.status, TEXT, refusal.text + "\n")
        except UnavailableError as error:
            self.requests[route, "unavailable"] += 1
            proto.response_str(503, [*TEXT, ("retry-after", "1")], f"not booked, please repeat: {error}\n")

    async def _notice(self, route: str, token: str, query: str, proto: Any) -> None:
        notice = read_notice(self.signer, route, token, parse_query(query), time.time_ns() // 1_000_000)
        if notice.test:
            self.requests[route, "test"] += 1
        else:
            try:
                new = await self.writer.submit(notice)
                self.requests[route, "new" if new else "duplicate"] += 1
            except UnavailableError:
                if notice.kind != CLICK:
                    raise
                self.requests[route, "unavailable"] += 1
        if notice.kind == CLICK:
            proto.response_empty(302, [("location", self._landing(notice.ticket.creative, token))])
        elif notice.kind == IMPRESSION:
            proto.response_bytes(200, PIXEL_HEADERS, PIXEL)
        else:
            proto.response_empty(204, [])

    def _landing(self, creative: int, token: str) -> str:
        """Where a click goes: from the catalog by creative id, never from the request."""
        url = self.plan.landings.get(creative, "")
        if not url.startswith(("https://", "http://")):
            raise RefusedError(404, "landing", "this ad has no landing page any more")
        address, mark, fragment = url.partition("#")
        return f"{address}{'&' if '?' in address else '?'}dsp_click_id={token}{mark}{fragment}"

    async def _other(self, scope: Any, proto: Any) -> None:
        path = scope.path
        if path == "/sync" and scope.method == "POST":
            proto.response_bytes(200, MSGPACK, await self._sync(scope, proto))
        elif path == "/healthz":
            proto.response_str(200, TEXT, "ok\n")
        elif path == "/readyz":
            ready = self.writer.books is not None and not self.writer.fenced
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
        length = scope.headers.get("content-length") or ""
        if not length.isdigit() or int(length) > SYNC_MAX_BYTES:
            raise RefusedError(413, "length", f"a content-length of up to {SYNC_MAX_BYTES} is needed")
        body = await proto()
        if not hmac.compare_digest(scope.headers.get("x-dsp-signature") or "", sign_sync(self._sync_key, body)):
            raise RefusedError(403, "signature", "x-dsp-signature does not match")
        try:
            request = decode_request(body)
        except msgspec.MsgspecError as error:
            raise RefusedError(400, "sync", str(error)) from None
        reply = await self.writer.submit(lambda books, mono_ns, time_ms: books.sync(request, mono_ns, time_ms))
        self.requests["sync", "ok"] += 1
        return encode_reply(reply)


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
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve()
    finally:
        await app.close()
    if app.writer.fenced:
        raise SystemExit(EXIT_FENCED)


def run_ledger(config: Config) -> None:
    """The ledger role in this process, blocking."""
    sys.setswitchinterval(0.001)  # loop and books take turns often: neither waits 5 ms for the other
    uvloop.run(serve(config))
