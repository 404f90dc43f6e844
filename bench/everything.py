"""A running bidder that wants everything (`dsp/catalog/example/everything.yaml`), for the corpus and for bad input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dsp.catalog
from bench.clients import Client, GrpcClient, HttpClient
from bench.procs import Server
from bench.worker import start_worker
from dsp.base.config import Config, LedgerConfig
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, open_catalog
from dsp.model.bootstrap import bootstrap_model

CATALOG = Path(dsp.catalog.__file__).parent / "example" / "everything.yaml"
PUBLIC_URL = "https://notices.dsp.example"
EXCHANGE = "alpha"
WIRES = ("http-json", "http-protobuf", "grpc")


@dataclass(frozen=True)
class Bidder:
    """Where it listens; ``token`` is the exchange's, ``usd`` the value of each currency."""

    http: Server
    grpc: Server
    token: str
    usd: dict[str, float]

    @property
    def path(self) -> str:
        """The HTTP path of the exchange."""
        return f"/bid/{EXCHANGE}"

    def client(self, wire: str) -> Client:
        """A client for one of WIRES."""
        if wire == "grpc":
            return GrpcClient(self.grpc.address, self.token)
        kind = "application/json" if wire == "http-json" else "application/x-protobuf"
        return HttpClient(self.http.address, self.path, kind, self.token)

    def server(self, wire: str) -> Server:
        """The process behind a wire."""
        return self.grpc if wire == "grpc" else self.http


@contextmanager
def everything_bidder(data_dir: Path, *, grpc_front: str = "grpc") -> Iterator[Bidder]:
    """Make the data directory and serve it on both fronts until the end of the ``with``."""
    config = Config(data_dir=str(data_dir), ledger=LedgerConfig(public_url=PUBLIC_URL))
    data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_catalog(catalog_path(config))
    apply_file(engine, CATALOG)
    engine.dispose()
    snapshot = Snapshot.load(publish(config))
    bootstrap_model(config)
    token = next(str(x["token"]) for x in snapshot.meta["exchanges"] if x["name"] == EXCHANGE)
    usd = {code.decode(): float(rate) for code, rate in zip(snapshot.cur_code, snapshot.cur_usd, strict=True)}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(start_worker(config, front, cpu=None, noon=False, log_decisions=False))
            for front in ("http", grpc_front)
        ]
        yield Bidder(servers[0], servers[1], token, usd)
