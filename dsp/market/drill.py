"""`dsp drill`: a whole running system under pressure, with faults on the way, judged against stated objectives.

A market trades with the system through its real endpoints: bid requests over HTTP and gRPC, notices to the ledger,
reads of the console. It starts at a normal rate, ramps to ``times`` that, and stays there while one fault after the
other is inflicted (`dsp.market.drill_faults`); then back to normal until every notice is acknowledged. What the market
was told and what the books say must then be the same, to the micro.

Nothing is taken on trust: an objective is judged by what the callers saw and by the books, not by the system's metrics.
The system's budgets are really spent, so drill on a system whose money is play money, with nobody else trading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import uvloop

from dsp.base.config import Config
from dsp.catalog.current import current_path
from dsp.catalog.publish import catalog_path
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import load_catalog, open_catalog
from dsp.ledger.audit import audit
from dsp.ledger.balances import BrokenInvariantError
from dsp.ledger.database import open_database
from dsp.market.demo import LIVE_FIRST, SHARES, sql_spend
from dsp.market.drill_faults import FAULTS, Fault, Grip
from dsp.market.drill_objectives import Objective, Sample, judge
from dsp.market.http_client import HttpClient
from dsp.market.live import LiveMarket, Tally
from dsp.market.notices import Books, Courier
from dsp.market.people import People
from dsp.market.wire import GrpcWire, HttpWire
from dsp.market.world import World
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

SAMPLE_S = 0.5
RAMP_STEPS = 4
SETTLE_S = 30.0
CONSOLE_PAUSE_S = 0.2
CONSOLE_READS = ("/api/v1/line-items?limit=50", "/api/v1/campaigns", "/api/v1/creatives?limit=20", "/healthz")
Say = Callable[[str], None]


class DrillError(Exception):
    """A drill that cannot be held; the message says what is missing."""


@dataclass(frozen=True)
class Plan:
    """How hard and how long."""

    rate: float = 120.0  # bid requests a second, normally
    times: float = 3.0  # of that at the peak
    normal_s: float = 8.0
    ramp_s: float = 8.0
    fault_s: float = 4.0  # how long a fault lasts, where that is ours to say
    after_s: float = 8.0  # between one fault and the next
    faults: tuple[str, ...] = tuple(FAULTS)
    people: int = 100_000  # as many as were loaded


@dataclass
class Outcome:
    """What a drill found."""

    plan: Plan
    objectives: list[Objective] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every objective was held."""
        return all(objective.ok for objective in self.objectives)


def hold_drill(config: Config, plan: Plan, key: str = "", say: Say = lambda text: None) -> Outcome:
    """Hold one; see `Drill`. Raises `DrillError`."""
    return uvloop.run(Drill(config, plan, key, say).run())


class Drill:
    """One drill of the system that ``config`` describes; ``key`` opens its console ("": no console traffic)."""

    def __init__(self, config: Config, plan: Plan, key: str = "", say: Say = lambda text: None) -> None:
        self.config, self.plan, self.key, self.say = config, plan, key, say
        self.outcome = Outcome(plan)
        self.console_seconds: list[float] = []
        self.console_errors = 0
        self._begun_s = 0.0
        self._planned = 0.0

    async def run(self) -> Outcome:
        """Hold it. Raises `DrillError` where the system does not run or cannot be reached."""
        world = self._world()
        before = await asyncio.to_thread(self._books)
        bidder, ledger = self.config.bidder, self.config.ledger
        http = HttpClient(bidder.http_host, bidder.http_port, connections=128)
        notices = HttpClient(ledger.worker_host or ledger.host, ledger.port, connections=32, timeout_s=5.0)
        grpc = GrpcWire(f"{bidder.grpc_host}:{bidder.grpc_port}")
        asks = {"json": HttpWire(http, FMT_JSON).ask, "protobuf": HttpWire(http, FMT_PROTOBUF).ask, "grpc": grpc.ask}
        books = Books()
        courier = Courier(notices, books)
        market = LiveMarket(world, [(name, asks[name], weight) for name, weight in SHARES], courier, books)
        first = LIVE_FIRST + int(time.time()) % 1_000_000 * 1000  # other auctions than any earlier drill's
        await market.run(0.5, 50, first=first)  # connections and first calls are not the market's latency
        market.tally = Tally()
        self._begun_s = time.monotonic()
        watching = [asyncio.create_task(self._watch(market, courier)), asyncio.create_task(self._console())]
        try:
            await self._trade(market, first + 1000)
            settled = await courier.settled(SETTLE_S)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        unsettled = courier.pending + courier.failed
        for client in (http, notices):
            await client.close()
        await courier.close()
        grpc.close()
        try:
            after = await asyncio.to_thread(self._books)
        except httpx.HTTPError as error:
            raise DrillError(f"the ledger doesn't answer any more ({error}): nothing can be reconciled") from error
        self._conclude(market.tally, books, courier, before, after, 0 if settled and not unsettled else unsettled)
        return self.outcome

    # --- before and after ---------------------------------------------------------------------------------------------

    def _world(self) -> World:
        path = current_path(self.config)
        if path is None:
            raise DrillError(f"nothing is published under {self.config.root}: start the system with `dsp serve`")
        bidder = self.config.bidder
        try:
            ready = httpx.get(f"http://{bidder.http_host}:{bidder.metrics_port}/readyz", timeout=5.0).status_code
        except httpx.HTTPError as error:
            raise DrillError(f"no bidder answers on port {bidder.metrics_port} ({error}): start `dsp serve`") from error
        if ready != 200:
            raise DrillError("the bidder is not ready yet: wait, or look at its log")
        engine = open_catalog(catalog_path(self.config))
        try:
            catalog = load_catalog(engine)
        finally:
            engine.dispose()
        people = People.generate(self.plan.people, self.config.seed)
        return World.make(people, self.config.seed, Snapshot.load(path), catalog, bidder.vendor_id)

    def _books(self) -> dict[str, dict[int, int]]:
        """Spend by line item, micros: as the ledger says it, and as its entries add up."""
        ledger = self.config.ledger
        totals = httpx.get(f"http://{ledger.worker_host or ledger.host}:{ledger.port}/totals", timeout=30.0).json()
        said = {int(k): int(v["spend_micros"]) for k, v in totals["line_items"].items() if v.get("spend_micros")}
        return {"ledger": said, "entries": sql_spend(self.config)}

    def _conclude(
        self, tally: Tally, books: Books, courier: Courier, before: dict[str, dict[int, int]],
        after: dict[str, dict[int, int]], unsettled: int,
    ) -> None:  # fmt: skip
        """The figures, and the verdict on each objective."""
        grown = {
            name: {k: n - before[name].get(k, 0) for k, n in after[name].items() if n != before[name].get(k, 0)}
            for name in after
        }
        ours = {line: micros for line, micros in books.by_line_item.items() if micros}
        engine = open_database(self.config.ledger.database or self.config.path("ledger.db"))
        try:
            audited, broken = audit(engine), ""
        except BrokenInvariantError as error:
            audited, broken = 0, str(error)
        finally:
            engine.dispose()
        slow = np.percentile(self.console_seconds, 95) if self.console_seconds else 0.0
        self.outcome.figures = {
            "planned": round(self._planned), "asked": tally.asked, "answered": tally.answered, "bids": tally.bids,
            "wins": tally.wins, "timeouts": tally.timeouts, "errors": tally.errors, "invalid": tally.invalid,
            "skipped": tally.skipped, "market_pause_ms": round(tally.longest_pause_s * 1e3, 1),
            "statuses": {f"{wire} {status}": n for (wire, status), n in sorted(tally.statuses.items())},
            "notices": sum(books.events.values()), "notice_retries": courier.retries, "unsettled": unsettled,
            "refused_notices": {str(k): v for k, v in courier.refused.items()},
            "spend_micros": {"notices": sum(ours.values()), **{k: sum(v.values()) for k, v in grown.items()}},
            "reconciled": grown["ledger"] == ours and grown["entries"] == ours, "audited": audited, "broken": broken,
            "console_reads": len(self.console_seconds), "console_errors": self.console_errors,
            "console_p95_ms": round(float(slow) * 1e3, 1), "console": bool(self.key),
        }  # fmt: skip
        outcome = self.outcome
        outcome.objectives = judge(outcome.samples, outcome.faults, outcome.figures)

    # --- the load -----------------------------------------------------------------------------------------------------

    async def _trade(self, market: LiveMarket, first: int) -> None:
        plan = self.plan
        peak = plan.rate * plan.times
        self.say(f"normal: {plan.rate:,.0f} requests/s")
        first = await self._hold(market, plan.normal_s, plan.rate, first)
        for step in range(1, RAMP_STEPS + 1):
            rate = plan.rate + (peak - plan.rate) * step / RAMP_STEPS
            self.say(f"ramp: {rate:,.0f} requests/s")
            first = await self._hold(market, plan.ramp_s / RAMP_STEPS, rate, first)
        grip = Grip(self.config)
        for name in plan.faults:
            await self._fault(market, name, grip, peak, first)
            first += int(peak * (plan.fault_s + plan.after_s)) + 1
        self.say(f"back to {plan.rate:,.0f} requests/s")
        await self._hold(market, plan.normal_s, plan.rate, first)

    async def _hold(self, market: LiveMarket, seconds: float, rate: float, first: int) -> int:
        self._planned += seconds * rate
        await market.run(seconds, rate, first=first)
        return first + int(seconds * rate) + 1

    async def _fault(self, market: LiveMarket, name: str, grip: Grip, rate: float, first: int) -> None:
        """Inflict one fault a second into its stretch of the peak; it is over when it has healed itself."""
        plan = self.plan
        running = asyncio.create_task(self._hold(market, plan.fault_s + plan.after_s, rate, first))
        await asyncio.sleep(1.0)
        self.say(f"fault: {FAULTS[name].says}")
        fault = Fault(name, FAULTS[name].says, self._now())
        self.outcome.faults.append(fault)
        try:
            await FAULTS[name].inflict(grip, fault, plan.fault_s, self._now)
        except (OSError, LookupError, TimeoutError) as error:
            fault.failed = str(error) or type(error).__name__
        await running

    def _now(self) -> float:
        return time.monotonic() - self._begun_s

    async def _watch(self, market: LiveMarket, courier: Courier) -> None:
        """A sample every half second."""
        seen = Sample.of(self._now(), market.tally, market.books, courier, self.console_errors)
        while True:
            await asyncio.sleep(SAMPLE_S)
            now = Sample.of(self._now(), market.tally, market.books, courier, self.console_errors)
            seconds = market.tally.seconds[seen.answered :]
            self.outcome.samples.append(now.since(seen, float(np.percentile(seconds, 99)) * 1e3 if seconds else 0.0))
            seen = now

    async def _console(self) -> None:
        """What marketers do: read lists, all the time."""
        if not self.key:
            return
        console = self.config.console
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(
            base_url=f"http://{console.host}:{console.port}", headers=headers, timeout=10.0, trust_env=False
        ) as client:
            n = 0
            while True:
                begun = time.perf_counter()
                try:
                    status = (await client.get(CONSOLE_READS[n % len(CONSOLE_READS)])).status_code
                except httpx.HTTPError:
                    status = 0
                self.console_errors += status != 200
                self.console_seconds.append(time.perf_counter() - begun)
                n += 1
                await asyncio.sleep(CONSOLE_PAUSE_S)
