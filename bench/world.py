"""The standard benchmark's data under ``bench/out``: catalog, people, model and requests.

Everything comes from seeds. The slow part, a million profiles in LMDB, is kept until the code that makes it changes;
catalog, model and requests are made anew in seconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import msgspec
import numpy as np

from bench.material import REQUESTS, load_cases
from bench.procs import OUT
from dsp.base.config import BidderConfig, Config, LedgerConfig
from dsp.catalog.compile import compile_catalog
from dsp.catalog.records import Catalog
from dsp.catalog.snapshot import write_snapshot
from dsp.catalog.synthetic import synthetic_catalog
from dsp.market.people import Mix, People
from dsp.market.profiles import write_profiles
from dsp.market.supply import RequestFactory, Scene
from dsp.market.world import venues_of
from dsp.model.bootstrap import prior_network
from dsp.model.context import HEADS
from dsp.model.curves import prior_curves, save_curves
from dsp.model.deep import UNITS
from dsp.model.export import to_onnx
from dsp.model.features import FEATURES, SPEC_HASH, F
from dsp.model.manifest import MODEL_FILE, Manifest
from dsp.model.network import Network
from dsp.model.registry import make_current, save_version
from dsp.openrtb.convert import json_to_pb

NOON_S = 1_767_798_000  # Wednesday 2026-01-07 15:00 UTC: dayparts must not make one run differ from another
PUBLIC_URL = "https://notices.dsp.example"
DEALS = 6  # an exchange offers
POPULATION = Mix(known=0.995, refused=0.02, limited=0.01)
FINANCE_BLOCKED = 0.32  # of the requests: with it the bid rate is between 60 and 80 %
ROOT = Path(__file__).resolve().parents[1]
_PROFILE_CODE = ("dsp/audience", "dsp/market/people.py", "dsp/market/profiles.py", "dsp/market/places.py")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Parameters:
    """What the world is made of."""

    line_items: int = 5_000
    people: int = 1_000_000
    requests: int = 6_000
    market_share: float = 0.95  # the rest is from the corpus, where that is present
    seed: int = 20_260_107


class Item(msgspec.Struct, array_like=True, frozen=True):
    """One request in both formats."""

    exchange: str
    json: bytes
    pb: bytes
    market: bool


@dataclass(frozen=True)
class World:
    """A data directory ready to serve, and requests for it."""

    config: Config
    catalog: Catalog
    items: list[Item]

    @property
    def tokens(self) -> dict[str, str]:
        """The token of each exchange."""
        return {exchange.name: exchange.token for exchange in self.catalog.exchanges}


def make_world(parameters: Parameters, progress: Progress = lambda what: None) -> World:
    """Everything, from the cache where it has it. ``progress`` is told what begins."""
    config = Config(
        data_dir=str(OUT / f"world-{_key(parameters)}"),
        bidder=BidderConfig(http_workers=1, grpc_workers=1, connection_max_age_s=0.0),
        ledger=LedgerConfig(public_url=PUBLIC_URL),
    )
    progress("catalog")
    catalog = synthetic_catalog(parameters.line_items, parameters.seed)
    publish(config, catalog)
    progress("model")
    write_model(config, parameters.seed)
    progress("people")
    people = People.generate(parameters.people, parameters.seed, POPULATION)
    done = config.path("profiles.done")
    if not done.exists():
        progress(f"profiles of {parameters.people:,} people (kept for later runs)")
        shutil.rmtree(config.path("profiles"), ignore_errors=True)
        write_profiles(config, people, {exchange.name: exchange.id for exchange in catalog.exchanges})
        done.touch()
    progress(f"{parameters.requests:,} requests")
    return World(config, catalog, list(make_items(parameters, people, catalog)))


def forget_decisions() -> None:
    """Drop the decision logs that benchmarks wrote; call while no engine is open."""
    for directory in OUT.glob("world-*/log"):
        shutil.rmtree(directory, ignore_errors=True)


def _key(parameters: Parameters) -> str:
    """Of everything that decides what the profiles are."""
    digest = hashlib.blake2b(digest_size=6)
    digest.update(repr((parameters.people, parameters.seed, POPULATION)).encode())
    for name in _PROFILE_CODE:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return f"{parameters.line_items}-{parameters.people}-{digest.hexdigest()}"


def publish(config: Config, catalog: Catalog) -> Path:
    """Compile ``catalog`` and make it the data directory's only snapshot, without a database."""
    directory = config.path("snapshots")
    directory.mkdir(parents=True, exist_ok=True)
    arrays, meta = compile_catalog(catalog, 1, config.ledger.public_url, NOON_S)
    path = directory / "000001.snap"
    write_snapshot(path, arrays, meta)
    directory.joinpath("CURRENT").write_text(path.name)
    return path


def write_model(config: Config, seed: int) -> None:
    """The prior model in a trained one's shape: same answers but for a little noise, same cost."""
    rng = np.random.default_rng(seed)
    prior = prior_network()
    hidden = rng.normal(0, np.sqrt(2 / F), (F, UNITS))
    deep = rng.normal(0, 0.02, (UNITS, len(HEADS)))
    network = Network(prior.linear, prior.bias, hidden, np.zeros(UNITS), deep)

    def write(directory: Path, version: int) -> None:
        directory.joinpath(MODEL_FILE).write_bytes(to_onnx(network, "bench"))
        save_curves(directory, prior_curves())
        Manifest(version, f"bench-{version:06d}", "benchmark", "", SPEC_HASH, FEATURES, HEADS).save(directory)

    shutil.rmtree(config.path("models"), ignore_errors=True)
    make_current(config, save_version(config, write))


def make_items(parameters: Parameters, people: People, catalog: Catalog) -> Iterator[Item]:
    """The request mix: market traffic, and every so often one of the corpus."""
    # The factory draws a number per deal of an exchange and imp, out of a fixed stock.
    venues = [replace(venue, deals=venue.deals[:DEALS]) for venue in venues_of(catalog)]
    factory = RequestFactory(people, parameters.seed, venues, finance_blocked=FINANCE_BLOCKED)
    real = corpus_bodies() if REQUESTS.exists() else []
    turn, owed = cycle(real), 0.0
    for i in range(parameters.requests):
        scene = factory.scene(i)
        body = scene.body
        owed += 1 - parameters.market_share if real else 0.0
        market = owed < 1
        if not market:
            owed -= 1
            body = lend_person(json.loads(next(turn)), scene, people, factory.venues[scene.venue].name)
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        yield Item(factory.venues[scene.venue].name, text, json_to_pb(body).SerializeToString(), market)


def corpus_bodies() -> list[str]:
    """The corpus' full-size requests that any bidder must answer."""
    return [
        case.text for case in load_cases()
        if case.kind == "ok" and case.request is not None and "device" in case.request and len(case.text) > 900
        and ("site" in case.request or "app" in case.request)
    ]  # fmt: skip


def lend_person(body: dict[str, object], scene: Scene, people: People, exchange: str) -> dict[str, object]:
    """A real request with an id of its own and, as its person, the one who comes next in the market."""
    body["id"] = scene.body["id"]
    user, device = body.get("user"), body["device"]
    body["user"] = {**user, "buyeruid": people.buyeruid(scene.person, exchange)} if isinstance(user, dict) else {
        "buyeruid": people.buyeruid(scene.person, exchange)
    }  # fmt: skip
    if "app" in body and isinstance(device, dict):
        device["ifa"] = people.ifa(scene.person)
    return body
