"""A whole system for the console's benches, as `dsp demo` starts it: ledger, bidder and console as processes of their
own, and the market trading with them from a thread, which notes when each line item last bid.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import uvloop
import yaml

from dsp.base.config import BidderConfig, Config, ConsoleConfig, LedgerConfig
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.console.accounts import Accounts
from dsp.market.demo import LIVE_FIRST, PUBLIC_URL, example_catalog
from dsp.market.http_client import HttpClient
from dsp.market.live import LiveMarket
from dsp.market.notices import Books, Courier
from dsp.market.people import People
from dsp.market.profiles import write_profiles
from dsp.market.roles import Roles, free_ports
from dsp.market.supply import Scene
from dsp.market.wire import HttpWire
from dsp.market.world import World
from dsp.model.bootstrap import bootstrap_model
from dsp.openrtb.columns import FMT_JSON

READY_S = 240.0


class WatchedMarket(LiveMarket):
    """A market that notes, by line item, the `time.monotonic` at which its last bid was heard."""

    last_bid: dict[int, float]

    def _settle(self, scene: Scene, response: dict[str, Any]) -> None:
        now = time.monotonic()
        for seat in response["seatbid"]:
            for bid in seat["bid"]:
                ad = self.world.ads.get(bid.get("crid", ""))
                if ad is not None:
                    self.last_bid[ad.line_item] = now
        super()._settle(scene, response)


class LiveSystem:
    """Context manager: everything runs inside it. ``last_bid``: line item id -> `time.monotonic` seconds."""

    def __init__(self, directory: Path, requests_per_s: float = 200.0, people: int = 3000) -> None:
        http, grpc, metrics, ledger, syncs, console, console_metrics = free_ports(7)
        self.requests_per_s = requests_per_s
        self.config = Config(
            data_dir=str(directory),
            bidder=BidderConfig(http_port=http, grpc_port=grpc, metrics_port=metrics, http_workers=1, grpc_workers=0),
            ledger=LedgerConfig(port=ledger, grpc_port=syncs, public_url=PUBLIC_URL),
            console=ConsoleConfig(port=console, metrics_port=console_metrics),
        )
        self.last_bid: dict[int, float] = {}
        self._people = people
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._trade()), name="market")

    @property
    def console(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.config.console.port}"

    def link(self) -> str:
        """An address that signs an owner in once."""
        engine = open_catalog(catalog_path(self.config))
        try:
            accounts = Accounts(engine)
            if not accounts.has_users():
                accounts.add_owner("owner@bench.example")
            return f"{self.console}/enter?token={accounts.make_link()}"
        finally:
            engine.dispose()

    def __enter__(self) -> Self:
        config = self.config
        file = config.path("config.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
        engine = open_catalog(catalog_path(config))
        apply_file(engine, example_catalog())
        snapshot, self.catalog = Snapshot.load(publish(config)), load_catalog(engine)
        engine.dispose()
        people = People.generate(self._people, config.seed)
        write_profiles(config, people)
        bootstrap_model(config)
        self.world = World.make(people, config.seed, snapshot, self.catalog, config.bidder.vendor_id)
        self.roles = Roles(file, config.path("run"))
        self.roles.__enter__()
        try:
            for name, port, path in (
                ("ledger", config.ledger.port, "readyz"),
                ("bidder", config.bidder.metrics_port, "readyz"),
                ("console", config.console.port, "healthz"),
            ):
                role = self.roles.start(name, [name])
                self.roles.wait_ready(role, f"http://127.0.0.1:{port}/{path}", READY_S)
            self._thread.start()
        except BaseException:
            self.roles.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self.roles.stop()

    async def _trade(self) -> None:
        bidder, ledger = self.config.bidder, self.config.ledger
        http = HttpClient(bidder.http_host, bidder.http_port, connections=64)
        notices = HttpClient(ledger.host, ledger.port, connections=16, timeout_s=5.0)
        books = Books()
        courier = Courier(notices, books)
        market = WatchedMarket(self.world, [("json", HttpWire(http, FMT_JSON).ask, 1.0)], courier, books)
        market.last_bid = self.last_bid
        first = LIVE_FIRST
        while not self._stopping.is_set():
            await market.run(0.5, self.requests_per_s, first=first)
            first += int(self.requests_per_s)
        await courier.settled(5.0)
        for client in (http, notices):
            await client.close()
        await courier.close()

    def bids(self, line_items: list[int], since: float) -> bool:
        """Whether any of them bid since then."""
        return any(self.last_bid.get(i, 0.0) >= since for i in line_items)

    def wait_for_bid(self, line_items: list[int], timeout_s: float = 30.0) -> bool:
        """Whether one of them bids before time runs out."""
        since = time.monotonic()
        while time.monotonic() < since + timeout_s:
            self.roles.check()
            if self.bids(line_items, since):
                return True
            time.sleep(0.02)
        return False

    def quiet_after(self, line_items: list[int], begun: float, watch_s: float) -> float:
        """Seconds from ``begun`` to the last bid of any of them (negative: it was before), watched for ``watch_s``."""
        time.sleep(max(0.0, begun + watch_s - time.monotonic()))
        return max(self.last_bid.get(i, 0.0) for i in line_items) - begun
