"""`dsp demo`: the whole system alive for a minute, from an empty directory to reconciled books.

Catalog and people are loaded, a bootstrap model explores a simulated market, `dsp train` learns from its logs, ledger
and bidder start as processes of their own, and the market trades with them through their real endpoints. At the end
the ledger's spend must equal what the market's notices add up to, to the micro, per line item, over HTTP and in SQL.
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop
import yaml

from dsp.base.config import Config
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.records import Catalog
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.control.wincurve import fit_win_curve
from dsp.control.winscale import fit_win_scale
from dsp.ledger.accounts import LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.schema import ENTRIES, ENTRY_CHARGE
from dsp.market.display import Bar, Display, money, per, say, share
from dsp.market.http_client import HttpClient
from dsp.market.live import LiveMarket, Tally
from dsp.market.notices import Books, Courier
from dsp.market.people import People
from dsp.market.profiles import write_profiles
from dsp.market.roles import RoleError, Roles, free_ports
from dsp.market.simulate import simulate
from dsp.market.wire import GrpcWire, HttpWire
from dsp.market.world import World
from dsp.model.bootstrap import bootstrap_model
from dsp.model.manifest import Manifest
from dsp.model.registry import current_dir
from dsp.model.train import train
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

PEOPLE = 100_000
LEARN_REQUESTS = 60_000
LEARN_EXPLORE = 8.0  # bids this many times what the prior model thinks: knowledge costs
DUEL_REQUESTS = 4_000
DUEL_FIRST = 1 << 23  # auctions that nobody learned from
REQUESTS_PER_S = 500.0  # leaves both of two cores room: the market costs more than what it measures
READY_S = 240.0  # a first start compiles
SETTLE_S = 15.0
PUBLIC_URL = "https://notices.dsp.example"  # the market delivers to the ledger as the TLS terminator in front would
SHARES = (("json", 0.75), ("protobuf", 0.1), ("grpc", 0.15))
LIVE_FIRST = 1 << 24  # live auctions are others than those it learned from


@dataclass
class Report:
    """What a demo found; ``failures`` is empty when all is well."""

    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps({"ok": not self.failures, "failures": self.failures, "seconds": self.seconds, **self.figures})


def run_demo(
    config: Config,
    seconds: float = 60.0,
    requests_per_s: float = REQUESTS_PER_S,
    *,
    catalog_file: Path | None = None,
    people: int = PEOPLE,
    learn_requests: int = LEARN_REQUESTS,
    as_json: bool = False,
    entrance: Callable[[Config], str] | None = None,
) -> int:
    """Run the demo under ``config.data_dir``/demo; 0 when the books reconcile and every stage was seen, else 1."""
    demo = Demo(config, seconds, requests_per_s, people, learn_requests, quiet=as_json)
    demo.entrance = entrance
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the roles on the way out
    try:
        report = demo.run(catalog_file or example_catalog())
    except RoleError as error:
        report = demo.report
        report.failures.append(str(error))
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print(report.as_json())
    else:
        _print_report(report)
    return 1 if report.failures else 0


def example_catalog() -> Path:
    """The catalog file that ships with the package."""
    import dsp.catalog

    return Path(dsp.catalog.__file__).parent / "example" / "catalog.yaml"


class Demo:
    """One run; `run` does it."""

    def __init__(
        self, base: Config, seconds: float, requests_per_s: float, people: int, learn: int, *, quiet: bool
    ) -> None:
        self.seconds, self.requests_per_s, self.n_people, self.learn_requests = seconds, requests_per_s, people, learn
        self.quiet = quiet
        self.entrance: Callable[[Config], str] | None = None  # starts the console, too, and says how to get in
        self.report = Report()
        self.config = _demo_config(base)
        self._begun = time.perf_counter()

    def run(self, catalog_file: Path) -> Report:
        """Everything, in order. Raises `RoleError` when a process does not start or dies."""
        root = self.config.root
        if root.exists():
            shutil.rmtree(root)
        root.mkdir(parents=True)
        config_file = root / "config.yaml"
        config_file.write_text(yaml.safe_dump(msgspec.to_builtins(self.config)))
        engine = open_catalog(catalog_path(self.config))
        apply_file(engine, catalog_file)
        snapshot, catalog = Snapshot.load(publish(self.config)), load_catalog(engine)
        engine.dispose()
        self._done("catalog", f"{len(catalog.line_items)} line items of {len(catalog.advertisers)} advertisers")
        people = People.generate(self.n_people, self.config.seed)
        known = write_profiles(self.config, people)
        self._done("people", f"{people.n:,} people, {known:,} of them with a profile in the audience store")
        world = World.make(people, self.config.seed, snapshot, catalog, self.config.bidder.vendor_id)
        self._learn(world, snapshot)
        with Roles(config_file, root / "run") as roles:
            self._start(roles)
            tally, books, unsettled = uvloop.run(self._trade(world, snapshot, catalog, roles))
            totals = httpx.get(f"http://127.0.0.1:{self.config.ledger.port}/totals", timeout=10.0).json()
            metrics = httpx.get(f"http://127.0.0.1:{self.config.bidder.metrics_port}/metrics", timeout=10.0).text
            statuses = roles.stop()
        self._done("market", "notices are in, processes stopped")
        self._judge(tally, books, unsettled, totals, statuses)
        inside = (quantile_ms(metrics, "dsp_request_seconds", q) for q in (0.5, 0.99))
        self.report.figures["bidder_p50_ms"], self.report.figures["bidder_p99_ms"] = inside
        return self.report

    # --- phases ------------------------------------------------------------------------------------------------------

    def _done(self, phase: str, text: str) -> None:
        now = time.perf_counter()
        took, self._begun = now - self._begun, now
        self.report.seconds[phase] = round(took, 2)
        say(f"{phase:>8}  {took:5.1f} s  {text}", quiet=self.quiet)

    def _learn(self, world: World, snapshot: Snapshot) -> None:
        """The prior model explores a simulated market; train on what it saw."""
        bootstrap_model(self.config)
        prior = self._profit(world, snapshot)
        with Bar("exploring", quiet=self.quiet) as progress:
            summary = simulate(
                self.config, world, snapshot, self.learn_requests, explore=LEARN_EXPLORE, progress=progress
            )  # fmt: skip
        self._done(
            "explore",
            f"{summary.requests:,} simulated auctions, {summary.wins:,} won, {summary.outcomes['click']:,} clicks, "
            f"{summary.outcomes['applied']:,} applications, {summary.outcomes['approved']:,} approved",
        )
        path = train(self.config, snapshot=snapshot, fit_win_curve=fit_win_curve, fit_win_scale=fit_win_scale)
        manifest = Manifest.load(path)
        current = current_dir(self.config)
        text = ", ".join(f"{head} AUC {m.auc:.2f}" for head, m in manifest.metrics.items() if m.auc is not None)
        if manifest.refused:
            text = f"refused ({'; '.join(manifest.refused)}); {current.name if current else ''} serves"
        self._done("train", f"{manifest.name}: {text}")
        trained = self._profit(world, snapshot)
        self.report.figures["model"] = {
            "name": manifest.name,
            "refused": list(manifest.refused),
            "prior_profit_usd": round(prior, 2),
            "profit_usd": round(trained, 2),
        }
        self._done(
            "duel",
            f"true profit of the same {DUEL_REQUESTS:,} other auctions: {money(prior)} with the prior, "
            f"{money(trained)} with what it learned",
        )

    def _profit(self, world: World, snapshot: Snapshot) -> float:
        """Expected worth less cost, USD, of what the current model buys in the duel's auctions; nothing is logged."""
        summary = simulate(self.config, world, snapshot, DUEL_REQUESTS, first=DUEL_FIRST, log=False)
        return summary.value_usd - summary.spend_usd

    def _start(self, roles: Roles) -> None:
        ledger, bidder = self.config.ledger, self.config.bidder
        role = roles.start("ledger", ["ledger"])
        roles.wait_ready(role, f"http://{ledger.host}:{ledger.port}/readyz", READY_S)
        role = roles.start("bidder", ["bidder"])
        roles.wait_ready(role, f"http://{bidder.http_host}:{bidder.metrics_port}/readyz", READY_S)  # of all workers
        if self.entrance is not None:
            console = self.config.console
            role = roles.start("console", ["console"])
            roles.wait_ready(role, f"http://{console.host}:{console.port}/healthz", READY_S)
            say(
                f"\n  console  {self.entrance(self.config)}  (signs in once; open while the market trades)\n",
                quiet=self.quiet,
            )
        self._done("start", "ledger and bidder are ready")

    async def _trade(
        self, world: World, snapshot: Snapshot, catalog: Catalog, roles: Roles
    ) -> tuple[Tally, Books, int]:
        """The live market; (tally, books, notices that were never acknowledged)."""
        bidder, ledger = self.config.bidder, self.config.ledger
        http = HttpClient(bidder.http_host, bidder.http_port, connections=128)
        notices = HttpClient(ledger.host, ledger.port, connections=32, timeout_s=5.0)
        grpc = GrpcWire(f"{bidder.grpc_host}:{bidder.grpc_port}")
        asks = {
            "json": HttpWire(http, FMT_JSON).ask,
            "protobuf": HttpWire(http, FMT_PROTOBUF).ask,
            "grpc": grpc.ask,
        }
        gc.collect()
        gc.freeze()  # what learning left behind is not searched again: a full collection would stop the market
        books = Books()
        courier = Courier(notices, books)
        market = LiveMarket(world, [(name, asks[name], weight) for name, weight in SHARES], courier, books)
        await market.run(0.5, 100, first=LIVE_FIRST - 1000)  # connections and first calls are not the market's latency
        await courier.settled(SETTLE_S)
        market.tally = Tally()
        advertisers = _advertisers_of(catalog)
        with Display(market.tally, books, advertisers, self.seconds, self.quiet) as display:
            running = asyncio.create_task(market.run(self.seconds, self.requests_per_s, first=LIVE_FIRST))
            try:
                while not running.done():
                    display.show()
                    roles.check()
                    await asyncio.sleep(0.1)
                await running
                settled = asyncio.create_task(courier.settled(SETTLE_S))
                while not settled.done():
                    display.show()
                    await asyncio.sleep(0.1)
            finally:
                running.cancel()
        unsettled = courier.pending + courier.failed
        if courier.failed:
            self.report.failures.append(f"{courier.failed} notices refused or given up: {dict(courier.refused)}")
        for client in (http, notices):
            await client.close()
        await courier.close()
        grpc.close()
        return market.tally, books, unsettled

    # --- the end -----------------------------------------------------------------------------------------------------

    def _judge(
        self, tally: Tally, books: Books, unsettled: int, totals: dict[str, Any], statuses: dict[str, int]
    ) -> None:
        """Reconcile, and see that every stage happened."""
        failures, figures = self.report.failures, self.report.figures
        in_sql = sql_spend(self.config)
        by_http = {int(k): v["spend_micros"] for k, v in totals["line_items"].items() if v.get("spend_micros")}
        ours = {line: micros for line, micros in books.by_line_item.items() if micros}
        if unsettled:
            failures.append(f"{unsettled} notices were never acknowledged")
        if totals["spend_micros"] != books.spend_micros:
            failures.append(f"ledger says {totals['spend_micros']} micros, notices add up to {books.spend_micros}")
        if by_http != ours or in_sql != ours:
            failures.append("spend by line item differs between ledger, SQL and notices")
        for what, number in (
            ("bids", tally.bids), ("wins", tally.wins), ("clicks", books.events["click"]),
            ("applications", books.events["applied"]), ("approvals", books.events["approved"]),
        ):  # fmt: skip
            if not number:
                failures.append(f"no {what}")
        if tally.invalid:
            failures.append(f"{tally.invalid} responses an exchange would refuse: {dict(tally.problems)}")
        failures += [
            f"{name} ended with status {status}" for name, status in statuses.items() if status not in (0, -15)
        ]
        p50, p99 = tally.percentiles_ms()
        figures |= {
            "requests": tally.answered,
            "requests_per_s": round(tally.answered / self.seconds, 1),
            "bid_rate": round(tally.bids / max(tally.answered, 1), 4),
            "win_rate": round(tally.wins / max(tally.offers, 1), 4),
            "wins": tally.wins,
            "timeouts": tally.timeouts,
            "errors": tally.errors,
            "invalid": tally.invalid,
            "skipped": tally.skipped,
            "statuses": {f"{wire} {status}": n for (wire, status), n in sorted(tally.statuses.items())},
            "p50_ms": round(p50, 2),
            "p99_ms": round(p99, 2),
            "longest_pause_ms": round(tally.longest_pause_s * 1000, 1),
            "spend_usd": round(books.spend_usd, 6),
            "true_value_usd": round(tally.value_usd, 2),
            "cost_per_approved_usd": round(books.spend_usd / max(books.events["approved"], 1), 4),
            "events": dict(books.events),
            "spend_micros": {
                "notices": books.spend_micros,
                "ledger": totals["spend_micros"],
                "sql": sum(in_sql.values()),
            },
            "line_items_spending": len(ours),
        }


def sql_spend(config: Config) -> dict[int, int]:
    """Charged micros by line item, added up from the ledger's entries in its database."""
    engine = open_database(config.ledger.database or config.path("ledger.db"))
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                ENTRIES.select().where(ENTRIES.c.kind == ENTRY_CHARGE, ENTRIES.c.debit == LINE_ITEM)
            ).all()
    finally:
        engine.dispose()
    out: dict[int, int] = {}
    for row in rows:
        out[row.line_item] = out.get(row.line_item, 0) + row.micros
    return {line: micros for line, micros in out.items() if micros}


def quantile_ms(metrics: str, name: str, q: float) -> float:
    """The upper edge, in ms, of the bucket in which quantile ``q`` of a histogram without labels lies; 0 if empty."""
    buckets = []
    for line in metrics.splitlines():
        if line.startswith(f'{name}_bucket{{le="'):
            edge, _, count = line[len(name) + 12 :].partition('"} ')
            buckets.append((float(edge.replace("+Inf", "inf")), float(count)))
    total = buckets[-1][1] if buckets else 0.0
    return next((round(edge * 1000, 3) for edge, count in buckets if total and count >= q * total), 0.0)


def _demo_config(base: Config) -> Config:
    """``base`` under its own data directory, on free ports, one HTTP and one gRPC worker, notices over https."""
    http, grpc, metrics, ledger, syncs, console, console_metrics = free_ports(7)
    bidder = msgspec.structs.replace(
        base.bidder, http_port=http, grpc_port=grpc, metrics_port=metrics, http_workers=1, grpc_workers=1
    )
    return msgspec.structs.replace(
        base,
        data_dir=str(base.root / "demo"),
        bidder=bidder,
        ledger=msgspec.structs.replace(base.ledger, port=ledger, grpc_port=syncs, public_url=PUBLIC_URL),
        console=msgspec.structs.replace(base.console, port=console, metrics_port=console_metrics),
    )


def _advertisers_of(catalog: Catalog) -> dict[int, str]:
    """The advertiser's name by line item id."""
    names = {advertiser.id: advertiser.name for advertiser in catalog.advertisers}
    owners = {campaign.id: names[campaign.advertiser_id] for campaign in catalog.campaigns}
    return {item.id: owners[item.campaign_id] for item in catalog.line_items}


def _print_report(report: Report) -> None:
    """The summary, for people."""
    f = report.figures
    if "requests" in f:
        events, micros = f["events"], f["spend_micros"]
        usd, approved = f["spend_usd"], events.get("approved", 0)
        print(
            f"\n  {f['requests']:,} bid requests at {f['requests_per_s']:,.0f}/s, p50 {f['p50_ms']:.1f} ms, "
            f"p99 {f['p99_ms']:.1f} ms, {f['timeouts']} timeouts, {f['errors'] + f['invalid']} errors\n"
            f"  of that inside the bidder: p50 {f['bidder_p50_ms']:.2f} ms, p99 {f['bidder_p99_ms']:.2f} ms\n"
            f"  bid rate {share(f['bid_rate'], 1)}, win rate {share(f['win_rate'], 1)}, {f['wins']:,} impressions, "
            f"{f['line_items_spending']} line items spending\n"
            f"  {events.get('click', 0):,} clicks, {events.get('applied', 0):,} applications, {approved:,} approved, "
            f"{events.get('funded', 0):,} funded\n"
            f"  spent {money(usd)} for impressions truly worth {money(f['true_value_usd'])}, "
            f"{per(usd, approved)} per approved customer\n\n"
            f"  spend in micros   notices {micros['notices']:,}   ledger {micros['ledger']:,}   SQL {micros['sql']:,}"
        )
    if report.failures:
        print("\n  FAILED\n" + "\n".join(f"  - {failure}" for failure in report.failures))
    else:
        print("  The books reconcile to the micro.")
