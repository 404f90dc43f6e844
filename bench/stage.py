"""A small market around real processes, for whoever wants to break them: ledger, workers, database, exchange.

`play` starts everything, lets an act happen, waits until all has come back by itself, and compares the books with what
the exchange knows: every acknowledged event is in the books, once; what is posted is what was sold, to the micro;
reports add up to it; debits are credits; and no line item has posted more than its budget, late wins and (booked
apart) disputed excess.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import Engine, func, select

from bench.exchange import Exchange
from bench.ledgers import MAX_BID, ledger_config, publish, seal
from bench.postgres import Postgres
from bench.zygote import Zygote
from dsp.base.config import Config
from dsp.base.token import Signer, load_signer
from dsp.bidder.slices import Slices
from dsp.catalog.current import current_path
from dsp.catalog.snapshot import Snapshot
from dsp.ledger.accounts import DISPUTE, LINE_ITEM
from dsp.ledger.audit import audit
from dsp.ledger.books import Books
from dsp.ledger.plan import plan_of
from dsp.ledger.schema import ENTRIES, ENTRY_CHARGE, EVENTS, ROLLUP_HOURS, token_id
from dsp.ledger.server import run_ledger
from dsp.ledger.ticket import open_ticket
from dsp.log.outcomes import BILLING, CLICK

LINES = 24
SETTINGS: dict[str, Any] = {"lease_s": 4.0, "skew_s": 0.5, "sync_s": 0.1, "win_rate_jump": 0.0, "price_jump": 0.0}
EXP_S = 1
WORKERS = 2
PAUSE_S = 0.003
SETTLE_S = 60.0


def run_worker(config: Config, pipe: int) -> None:
    """Bid on whatever the slices allow, and tell the exchange, until killed or asked to end."""
    signer = load_signer(config.path("secrets", "signing.json"))
    rng = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))
    slices = Slices(config, worker=f"worker-{os.getpid()}")
    slices.attach(np.arange(1, LINES + 1))
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    while not asked.is_set():
        now_ns = time.monotonic_ns()
        slices.refresh(now_ns)
        row, reserve = int(rng.integers(LINES)), int(rng.integers(MAX_BID // 2, MAX_BID + 1))
        if slices.available[row] >= reserve and slices.live(now_ns):
            slices.available[row] -= reserve
            slices.reserved[row] += reserve
            where = {
                "line_item": row + 1,
                "reserve_micros": reserve,
                "bid_cpm_micros": reserve * 1000,
                "period": int(slices.period[row]),
                "bucket": slices.bucket,
                "lease": slices.lease,
                "epoch": slices.epoch,
            }
            (token,) = seal(signer, 1, int(rng.integers(1, 1 << 62)), **where)
            os.write(pipe, token.encode() + b"\n")  # below PIPE_BUF: whole or not at all
        time.sleep(PAUSE_S)
    slices.close()


def warm(signer: Signer, config: Config) -> None:
    """Everything that is slow the first time, so that what is killed is back at once."""
    (token,) = seal(signer, 1, 1)
    open_ticket(signer, token)
    path = current_path(config)
    assert path is not None
    plan_of(Snapshot.load(path))
    Books.open(":memory:", durable=False).close()


class Stage:
    """The processes, and ways to hurt them."""

    def __init__(self, config: Config, server: Postgres | None, zygote: Zygote, exchange: Exchange) -> None:
        self.config, self.server, self.zygote, self.exchange = config, server, zygote, exchange
        self.ledger = zygote.fork("ledger")
        self.workers = [zygote.fork("worker") for _ in range(WORKERS)]

    def kill_ledger(self) -> None:
        """``kill -9``."""
        kill(self.ledger)

    def start_ledger(self) -> None:
        """A new one."""
        self.ledger = self.zygote.fork("ledger")

    def restart_worker(self, i: int) -> None:
        """``kill -9``, and a new process, which is a new lease."""
        kill(self.workers[i])
        self.workers[i] = self.zygote.fork("worker")

    def end(self) -> None:
        """Ask everything to end, ledger last."""
        for pid in (*self.workers, self.ledger):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            _gone(pid)


def kill(pid: int) -> None:
    """``kill -9``, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _gone(pid)


def _gone(pid: int, timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.005)


Act = Callable[[Stage], dict[str, Any]]


def play(
    backend: str, seed: int, budgets: list[int], act: Act, root: Path | None = None, **settings: Any
) -> dict[str, Any]:
    """Start everything, let ``act`` happen, compare; the figures, and what was found wrong (nothing, it is hoped)."""
    with ledger_config(backend, root, **(SETTINGS | settings)) as (config, server), tempfile.TemporaryFile() as log:
        publish(config, budgets, exp_s=EXP_S)
        signer = load_signer(config.path("secrets", "signing.json"))
        inlet, outlet = os.pipe()

        def child(what: Any, *args: Any) -> None:
            os.dup2(log.fileno(), 2)
            what(*args)

        roles = {
            "ledger": lambda _: child(run_ledger, config),
            "worker": lambda _: child(run_worker, config, outlet),
        }
        zygote = Zygote(roles, lambda: warm(signer, config))
        exchange = Exchange(signer, config.ledger.port, random.Random(seed + 1), late_after_s=EXP_S + 2.5)
        listener = threading.Thread(target=_listen, args=(inlet, exchange), daemon=True)
        listener.start()
        stage = Stage(config, server, zygote, exchange)
        began = time.monotonic()
        wait_ready(config)
        done = act(stage)
        wrong = _settle(stage, exchange, config)
        os.close(outlet)
        zygote.close()  # the last writers of the pipe
        listener.join(10)
        exchange.close()
        log.seek(0)
        errors = [line for line in log.read().decode("utf-8", "replace").splitlines() if "Traceback" in line]
        wrong += [f"{len(errors)} tracebacks in the logs"] if errors else []
        found = {
            "backend": backend,
            "seed": seed,
            **done,
            "seconds": round(time.monotonic() - began, 1),
            "bids": exchange.bids,
            "acknowledged": len(exchange.acknowledged),
            "clicks": len(exchange.clicks),
            "statuses": {str(k): v for k, v in sorted(exchange.statuses.items())},
        }
        books = Books.open(config.ledger.database or config.path("ledger.db"), config.ledger)
        try:
            return {**found, **compare(books, exchange, budgets, wrong)}
        finally:
            books.close()


def _listen(inlet: int, exchange: Exchange) -> None:
    with os.fdopen(inlet) as lines:
        for line in lines:
            exchange.bid(line.strip())


def wait_ready(config: Config, timeout_s: float = 60.0) -> bool:
    """Whether the ledger answers and has nothing left in its spool, in time."""
    until = time.monotonic() + timeout_s
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"http://127.0.0.1:{config.ledger.port}/readyz").status_code == 200:
                    return True
            time.sleep(0.05)
    return False


def _settle(stage: Stage, exchange: Exchange, config: Config) -> list[str]:
    """No more kills: all must come back by itself, and every notice be acknowledged and booked."""
    wrong = []
    if not wait_ready(config):
        wrong.append("the ledger did not recover")
    for pid in stage.workers:
        os.kill(pid, signal.SIGTERM)
        _gone(pid)
    time.sleep(0.2)  # for bids in the pipe
    if not exchange.settle(SETTLE_S):
        wrong.append("some notices were never acknowledged")
    if not wait_ready(config):
        wrong.append("the spool was not drained")
    stage.end()
    return wrong


def compare(books: Books, exchange: Exchange, budgets: list[int], wrong: list[str]) -> dict[str, Any]:
    """The books against what the exchange knows."""
    engine = books.journal.engine
    billed, clicked = _event_ids(engine, BILLING), _event_ids(engine, CLICK)
    charged = _charges(engine)
    lost = set(exchange.acknowledged) - set(billed)
    lost_clicks = exchange.clicks - set(clicked)
    twice = [bid for bid, n in charged.items() if n != 1]
    sold = dict.fromkeys(range(1, len(budgets) + 1), 0)
    sales = Counter(sale.line_item for sale in exchange.acknowledged.values())
    for sale in exchange.acknowledged.values():
        sold[sale.line_item] += sale.posted_micros
    posted = {line: books.spend(line) for line in sold}
    late = _late(engine)
    beyond = {n: posted[n] - budgets[n - 1] - late.get(n, 0) for n in sold}
    excess = sum(sale.charge_micros - sale.posted_micros for sale in exchange.acknowledged.values())
    disputed = sum(d - c for (kind, _, _, _), (d, c) in books.balances().items() if kind == DISPUTE)
    try:
        books.check()
        audit(engine)
    except AssertionError as error:
        wrong.append(str(error))
    if lost or lost_clicks:
        wrong.append(f"{len(lost)} acknowledged charges and {len(lost_clicks)} clicks are not in the books")
    if twice or len(charged) != len(exchange.acknowledged):
        wrong.append(f"{len(twice)} charged twice; {len(charged)} charges for {len(exchange.acknowledged)} sales")
    if posted != sold:
        wrong.append(f"posted is not sold: {[(n, posted[n], sold[n]) for n in sold if posted[n] != sold[n]][:5]}")
    reported = _reported(books)
    if reported != {n: (micros, sales[n]) for n, micros in sold.items() if micros}:
        wrong.append("reports do not add up to what was sold")
    if disputed != excess:
        wrong.append(f"disputed {disputed}, charged beyond reservations {excess}")
    if max(beyond.values()) > 0:
        wrong.append(f"the bound is broken: {[(n, over) for n, over in beyond.items() if over > 0][:5]}")
    return {
        "lost": len(lost) + len(lost_clicks),
        "double_postings": len(twice),
        "spent_lines": sum(posted[n] >= budgets[n - 1] - MAX_BID for n in sold),
        "late_wins_micros": sum(late.values()),
        "overspend_micros": sum(max(0, posted[n] - budgets[n - 1]) for n in sold),
        "overspend_beyond_late_wins_micros": sum(max(0, over) for over in beyond.values()),
        "wrong": wrong,
    }


def _event_ids(engine: Engine, kind: int) -> list[int]:
    with engine.connect() as connection:
        return [token_id(i) for i in connection.scalars(select(EVENTS.c.bid_id).where(EVENTS.c.kind == kind))]


def _charges(engine: Engine) -> dict[int, int]:
    """Charge entries by bid."""
    query = select(ENTRIES.c.bid_id, func.count()).where(ENTRIES.c.kind == ENTRY_CHARGE).group_by(ENTRIES.c.bid_id)
    with engine.connect() as connection:
        return {token_id(bid): int(n) for bid, n in connection.execute(query)}


def _reported(books: Books) -> dict[int, tuple[int, int]]:
    """Spend in micros and impressions by line item, as reports have it."""
    books.roll()
    c = ROLLUP_HOURS.c
    query = select(c.line_item, func.sum(c.spend_micros), func.sum(c.impressions)).group_by(c.line_item)
    with books.journal.engine.connect() as connection:
        return {int(n): (int(micros), int(shown)) for n, micros, shown in connection.execute(query) if shown}


def _late(engine: Engine) -> dict[int, int]:
    """Micros of late wins by line item."""
    query = select(ENTRIES.c.line_item, func.sum(ENTRIES.c.micros)).where(
        ENTRIES.c.late == 1, ENTRIES.c.kind == ENTRY_CHARGE, ENTRIES.c.debit == LINE_ITEM
    )
    with engine.connect() as connection:
        return {int(n): int(micros) for n, micros in connection.execute(query.group_by(ENTRIES.c.line_item))}
