"""Group commit: one thread owns the books and turns whatever has arrived into one transaction.

While a commit waits for the disk, the next batch gathers: no timer, no wait at low load. An answer leaves only after
its batch is durable. When a batch fails, its callers hear `UnavailableError` (exchanges and workers repeat), and the
books are opened again, as at start-up, until that succeeds. A fenced ledger never opens again.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from dsp.ledger.books import Books
from dsp.ledger.journal import FencedError
from dsp.ledger.ticket import Notice
from dsp.log.outcomes import OutcomeWriter

Work = Notice | Callable[[Books, int, int], Any]
QUEUE_LIMIT = 20_000
BATCH_LIMIT = 2_000
TICK_S = 0.1
RETRY_S = 1.0


class UnavailableError(Exception):
    """The books cannot take this now; nothing of it was booked, repeat later."""


class Writer:
    """Runs notices (result: new or not) and calls ``f(books, mono_ns, time_ms)`` on the books, in order of arrival."""

    def __init__(
        self, open_books: Callable[[], Books], outcomes: OutcomeWriter | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.books: Books | None = open_books()
        self.fenced = False
        self.batches = self.items = self.failures = 0
        self.commit_seconds = 0.0
        self._open_books, self._outcomes, self._loop = open_books, outcomes, loop
        self._counts = self.books.counts
        self._queue: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._on_open: list[Callable[[Books, int, int], Any]] = []
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Work that waits."""
        return len(self._queue)

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """From the event loop: the result, once durable. Raises `UnavailableError` at once when too much waits."""
        if self.fenced or self._stop or len(self._queue) >= QUEUE_LIMIT:
            raise UnavailableError("too many notices wait" if not self.fenced else "another ledger has taken over")
        future = self._loop.create_future()
        self._queue.append((work, future))
        if not self._wake.is_set():
            self._wake.set()
        return future

    def when_opened(self, call: Callable[[Books, int, int], Any]) -> None:
        """Run ``call`` on the books whenever they were opened again (say, to give them the plan)."""
        self._on_open.append(call)

    def close(self) -> None:
        """Finish what waits, close the books."""
        self._stop = True
        self._wake.set()
        self._thread.join()
        if self.books is not None:
            self.books.close()

    def _run(self) -> None:
        while True:
            stopping = self._stop  # before the queue is emptied: nothing is submitted after
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._step(self._take())
            while self._queue:
                self._step(self._take())
            if stopping:
                return

    def _take(self) -> list[tuple[Work, asyncio.Future[Any]]]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LIMIT))]

    def _step(self, batch: list[tuple[Work, asyncio.Future[Any]]]) -> None:
        try:
            results = self._commit([work for work, _ in batch])
        except Exception as error:  # whatever it was, memory is not to be trusted now: recover
            self.failures += 1
            if not isinstance(error, UnavailableError):
                print(f"ledger: batch of {len(batch)} failed: {error!r}", file=sys.stderr, flush=True)
            self.fenced = self.fenced or isinstance(error, FencedError)
            refusal = UnavailableError(str(error))
            results = [refusal] * len(batch)
            if not self.fenced:
                self._reopen()
        if batch:
            self._loop.call_soon_threadsafe(_deliver, [future for _, future in batch], results)

    def _commit(self, batch: list[Work]) -> list[Any]:
        books = self.books
        if books is None or self.fenced:
            raise UnavailableError("the books are not open")
        started = time.perf_counter()
        results: list[Any] = [None] * len(batch)
        notices = [(i, work) for i, work in enumerate(batch) if isinstance(work, Notice)]
        mono_ns, time_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        with books.batch():
            books.tick(mono_ns, time_ms)
            for (i, _), new in zip(notices, books.apply([notice for _, notice in notices]), strict=True):
                results[i] = new
            for i, work in enumerate(batch):
                if not isinstance(work, Notice):
                    results[i] = work(books, mono_ns, time_ms)
        if self._outcomes is not None:
            self._outcomes.append(books.outcomes)
        books.outcomes.clear()
        if batch:
            self.batches += 1
            self.items += len(batch)
            self.commit_seconds += time.perf_counter() - started
        return results

    def _reopen(self) -> None:
        """Recovery is start-up. Until it succeeds everything is refused."""
        if self.books is not None:
            self._counts = self.books.counts
            self.books.close()
        self.books = None
        try:
            books = self._open_books()
            books.counts = self._counts
            with books.batch():
                for call in self._on_open:
                    call(books, time.monotonic_ns(), time.time_ns() // 1_000_000)
            self.books = books
        except (SQLAlchemyError, OSError):
            time.sleep(0 if self._stop else RETRY_S)


def _deliver(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # its caller has gone
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
