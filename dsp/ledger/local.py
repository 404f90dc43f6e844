"""The ledger without sockets and threads: the market and tests run the same books with their own clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from dsp.base.token import Signer
from dsp.control.grants import SyncReply, SyncRequest
from dsp.ledger.books import Books
from dsp.ledger.notices import RefusedError, read_notice


class LocalLedger:
    """`SyncTransport` and notice endpoint over one `Books`. ``clock_ns`` monotonic, ``time_ms`` unix time."""

    def __init__(
        self,
        books: Books,
        signer: Signer,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        time_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.books, self.signer = books, signer
        self._clock_ns, self._time_ms = clock_ns, time_ms

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange, durable as the books are."""
        with self.books.batch():
            self.books.tick(self._clock_ns(), self._time_ms())
            return self.books.sync(request, self._clock_ns(), self._time_ms())

    def notice(self, path: str, token: bytes | str, query: dict[str, str] | None = None) -> int:
        """What GET /{path}/{token}?{query} does, as an HTTP status."""
        text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
        try:
            notice = read_notice(self.signer, path, text, query or {}, self._time_ms(), self.books.granting.plan.rates)
        except RefusedError as refusal:
            return refusal.status
        if not notice.test:
            with self.books.batch():
                self.books.apply([notice])
        return 204

    def close(self) -> None:
        """Nothing to let go of: the books belong to who opened them."""
