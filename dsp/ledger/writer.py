"""Group commit: one thread owns the books and turns whatever has arrived into one transaction.

While a commit waits for the disk, the next batch gathers: no timer, no wait at low load. An answer leaves only after
its batch is durable. When a batch fails, its notices go to the spool and are acknowledged from there, calls hear
`UnavailableError` (workers repeat), and another thread opens the books again, as at start-up, until that succeeds. Then
the spool is drained before anything else but notices happens: no bucket closes while a notice of it may lie there
(rule 5: the watermark). A fenced ledger never opens again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from dsp.base.logs import logger
from dsp.ledger.adjust import AdjustmentError
from dsp.ledger.books import Books
from dsp.ledger.journal import FencedError
from dsp.ledger.news import AudienceNews
from dsp.ledger.spool import Spool
from dsp.ledger.ticket import Notice
from dsp.log.outcomes import LOSS, OutcomeWriter

log = logger(__name__)

Call = Callable[[Books, int, int], Any]
Work = Sequence[Notice] | Call
QUEUE_LIMIT = 20_000  # notices and calls that wait
BATCH_LIMIT = 2_000
DRAIN_LIMIT = 2_000
TICK_S = 0.1
RETRY_S = 0.5
STUCK_S = 5.0  # a transaction that takes longer is taken for a dead database
SPOOLED = "spooled"


class UnavailableError(Exception):
    """The books cannot take this now; nothing of it was booked, repeat later."""


class Writer:
    """Runs notices and calls ``f(books, mono_ns, time_ms)`` on the books, in order of arrival.

    A notice's result is True (new), False (known) or `SPOOLED`; a call's is what it returns. ``books`` is None while
    the database is away.
    """

    def __init__(
        self,
        open_books: Callable[[], Books],
        outcomes: OutcomeWriter | None,
        loop: asyncio.AbstractEventLoop,
        spool: Spool | None = None,
        audience: AudienceNews | None = None,
    ) -> None:
        self.books: Books | None = None
        self.fenced = False
        self.batches = self.items = self.failures = self.spooled = self.losses_dropped = 0
        self.commit_seconds = 0.0
        self.counts: Counter[str] = Counter()
        self._open_books, self._outcomes, self._loop, self._spool = open_books, outcomes, loop, spool
        self._audience = audience
        self._queue: deque[tuple[Work, asyncio.Future[Any], int]] = deque()  # and when it arrived
        self._waiting = 0
        self._on_open: list[Call] = []
        self._wake = threading.Event()
        self._stop = False
        self._opened: Books | None = None  # by the opener, for the writer to take over
        self._opener: threading.Thread | None = None
        self._committing: tuple[Books, float] | None = None  # since when, for the watchdog
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="books watchdog", daemon=True).start()

    @property
    def depth(self) -> int:
        """Notices and calls that wait."""
        return self._waiting

    @property
    def pending(self) -> int:
        """Notices in the spool."""
        return self._spool.pending if self._spool is not None else 0

    @property
    def ready(self) -> bool:
        """Whether calls are answered."""
        return self.books is not None and not self.fenced and not self.pending

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """From the event loop: a call's result, once durable. Raises `UnavailableError` at once when it is hopeless."""
        return self._put(call, 1)

    def book(self, notices: Sequence[Notice]) -> asyncio.Future[list[bool | str]]:
        """From the event loop: the results of ``notices``, once durable. Raises `UnavailableError` as `submit` does."""
        return self._put(notices, len(notices))

    def _put(self, work: Work, size: int) -> asyncio.Future[Any]:
        if self.fenced or self._stop or self._waiting + size > QUEUE_LIMIT:
            raise UnavailableError("too many notices wait" if not self.fenced else "another ledger has taken over")
        future = self._loop.create_future()
        self._waiting += size  # only the loop's thread adds and subtracts
        self._queue.append((work, future, time.monotonic_ns()))
        if not self._wake.is_set():
            self._wake.set()
        return future

    def when_opened(self, call: Call) -> None:
        """Run ``call`` on the books whenever they were opened (say, to give them the plan)."""
        self._on_open.append(call)

    def close(self) -> None:
        """Finish what waits, close the books."""
        self._stop = True
        self._wake.set()
        self._thread.join()
        if self.books is not None:
            self.books.close()
        if self._spool is not None:
            self._spool.close()

    # --- the writer's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            stopping = self._stop  # before the queue is emptied: nothing is submitted after
            if not (self.books is not None and self.pending):  # a spool is drained without waiting
                self._wake.wait(TICK_S)
            self._wake.clear()
            self._step(self._take())
            while self._queue:
                self._step(self._take())
            if stopping:
                return

    def _take(self) -> list[tuple[Work, asyncio.Future[Any]]]:
        batch: list[tuple[Work, asyncio.Future[Any]]] = []
        size = 0
        while self._queue and size < BATCH_LIMIT:
            work, future, _ = self._queue.popleft()
            batch.append((work, future))
            size += 1 if callable(work) else len(work)
        return batch

    def _watermark_ns(self) -> int:
        """Whatever was received before this moment is in the batch at hand or in the books."""
        now_ns = time.monotonic_ns()
        return self._queue[0][2] if self._queue else now_ns

    def _step(self, batch: list[tuple[Work, asyncio.Future[Any]]]) -> None:
        works = [work for work, _ in batch]
        if self.books is None and not self.fenced:
            self._take_over()
        if self.books is None or self.fenced:
            results = self._without_books(works, "another ledger has taken over" if self.fenced else "no database")
        else:
            try:
                results = self._commit(self.books, works)
            except Exception as error:  # whatever it was, memory is not to be trusted now: recover
                self._failed(error, len(batch))
                results = self._without_books(works, str(error))
        if batch:
            sizes = sum(1 if callable(work) else len(work) for work in works)
            self._loop.call_soon_threadsafe(self._deliver, [future for _, future in batch], results, sizes)

    def _commit(self, books: Books, works: list[Work]) -> list[Any]:
        started = time.perf_counter()
        mono_ns, time_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        old = self._spool.take(DRAIN_LIMIT) if self._spool is not None and self.pending else []
        new = [notice for work in works if not callable(work) for notice in work]
        results: list[Any] = []
        self._committing = books, time.monotonic()
        try:
            with books.batch():
                booked = books.apply([*old, *new])[len(old) :]
                if not old:
                    books.tick(mono_ns, time_ms, min(mono_ns, self._watermark_ns()))
                at = 0
                for work in works:
                    if not callable(work):
                        results.append(booked[at : at + len(work)])
                        at += len(work)
                    elif old:
                        results.append(UnavailableError("the spool is being drained"))
                    else:
                        results.append(_call(work, books, mono_ns, time_ms))
        finally:
            self._committing = None
        if old and self._spool is not None:
            self._spool.taken(len(old))
        if self._outcomes is not None:
            self._outcomes.append(books.outcomes)
        books.outcomes.clear()
        if self._audience is not None:
            self._audience.tell(books.news)
        books.news.clear()
        if works:
            self.batches += 1
            self.items += len(new) + len(works)
            self.commit_seconds += time.perf_counter() - started
        return results

    def _without_books(self, works: list[Work], why: str) -> list[Any]:
        """Spool the notices; losses are not kept, their reservations end with their buckets."""
        refusal = UnavailableError(why)
        new = [notice for work in works if not callable(work) for notice in work]
        keep = [notice for notice in new if notice.kind != LOSS]
        kept = self._spool is not None and not self.fenced
        try:
            if self._spool is not None and kept:
                self._spool.append(keep)
                self.spooled += len(keep)
                self.losses_dropped += len(new) - len(keep)
        except OSError as error:
            kept, refusal = False, UnavailableError(f"{why}; no spool either: {error}")
        return [refusal if callable(work) or not kept else [SPOOLED] * len(work) for work in works]

    # --- losing and opening the books --------------------------------------------------------------------------------

    def _failed(self, error: Exception, size: int) -> None:
        self.failures += 1
        log.error("a batch failed", size=size, error=repr(error))
        self.fenced = self.fenced or isinstance(error, FencedError)
        if self.books is not None:
            _quietly(self.books.close)
        self.books = None
        if self._spool is not None:
            self._spool.rewind()

    def _take_over(self) -> None:
        if self._opened is not None:
            self.books, self._opened = self._opened, None
            self.books.counts = self.counts
        elif (self._opener is None or not self._opener.is_alive()) and not self._stop:
            self._opener = threading.Thread(target=self._open, name="books opener", daemon=True)
            self._opener.start()

    def _open(self) -> None:
        """Recovery is start-up. It runs beside the writer, which spools meanwhile."""
        try:
            books = self._open_books()
            with books.batch():
                for call in self._on_open:
                    call(books, time.monotonic_ns(), time.time_ns() // 1_000_000)
            self._opened = books
            self._wake.set()
        except (SQLAlchemyError, OSError, FencedError) as error:
            log.error("the books cannot be opened yet", error=repr(error))
            time.sleep(RETRY_S)

    def _watch(self) -> None:
        """Cut the connection of a transaction that hangs: a database can be there and say nothing."""
        while not self._stop:
            committing = self._committing
            if committing is not None and time.monotonic() - committing[1] > STUCK_S:
                _quietly(committing[0].journal.abort)
            time.sleep(0.5)

    def _deliver(self, futures: list[asyncio.Future[Any]], results: list[Any], sizes: int) -> None:
        self._waiting -= sizes
        for future, result in zip(futures, results, strict=True):
            if future.done():  # its caller has gone
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _call(call: Call, books: Books, mono_ns: int, time_ms: int) -> Any:
    """A refusal by the books is the caller's to hear; anything else means the books are not to be trusted."""
    try:
        return call(books, mono_ns, time_ms)
    except AdjustmentError as error:
        return error


def _quietly(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # already failing: the first error is the one to tell
        log.warning("an error while giving up a connection", error=repr(error))
