"""Golden scenarios: catalog, person and request in, bids or the reason for none out (see scenarios/README.md)."""

from __future__ import annotations

import copy
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from dsp.audience.identity import KIND_BUYERUID, KIND_IFA, identity_key, load_pepper
from dsp.audience.lmdb_store import open_profiles, profiles_path
from dsp.audience.lmdb_writer import LmdbWriter
from dsp.audience.profile import MAX_SEGMENTS, PROFILE
from dsp.base.config import BidderConfig, Config, SupplyConfig
from dsp.base.metrics import Metrics
from dsp.base.token import Signer
from dsp.bidder.answer import BAD, BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.compile import compile_catalog
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.model.bootstrap import bootstrap_model
from dsp.model.score import Scorer
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_pb, pb_to_json
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

SCENARIOS = Path(__file__).parent / "scenarios"
BASE = yaml.safe_load((SCENARIOS / "base.yaml").read_text())
FILES = sorted(path for path in SCENARIOS.rglob("*.yaml") if path.name != "base.yaml")
KINDS = {"ifa": KIND_IFA, "buyeruid": KIND_BUYERUID}
OFFSET = {"json": FMT_JSON, "protobuf": FMT_PROTOBUF}


def merge(base: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(change, dict) or not isinstance(base, dict):
        return copy.deepcopy(change)
    out = dict(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def shaped(scenario: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The scenario's catalog with the short cuts of the README put where they belong."""
    catalog = copy.deepcopy(scenario["catalog"])
    advertiser = catalog["advertisers"][0]
    base_item = advertiser["campaigns"][0]["line_items"][0]
    item = merge(base_item, change.get("line_item", {}))
    if "creative" in change:
        item["creatives"] = [merge(item["creatives"][0], change["creative"])]
    if "creatives" in change:
        item["creatives"] = change["creatives"]
    more = [merge(base_item, other) for other in change.get("more_line_items", [])]
    advertiser["campaigns"][0]["line_items"] = [item, *more]
    advertiser["campaigns"][0] = merge(advertiser["campaigns"][0], change.get("campaign", {}))
    catalog["advertisers"][0] = merge(advertiser, change.get("advertiser", {}))
    return catalog


SHORT_CUTS = ("line_item", "creative", "creatives", "more_line_items", "campaign", "advertiser")


class Stage:
    """One engine for all scenarios; each brings its own snapshot and people."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = Config(data_dir=str(root), bidder=BidderConfig(log_decisions=False))
        self.pepper = load_pepper(root / "secrets" / "pepper.json")
        self.scorer = Scorer.load(bootstrap_model(self.config))
        self.signer = Signer({1: b"k" * 32})
        self.count = 0

    def snapshot(self, catalog: dict[str, Any], now_s: float) -> Snapshot:
        self.count += 1
        file = self.root / f"catalog-{self.count}.yaml"
        file.write_text(yaml.safe_dump(catalog))
        database = open_catalog(self.root / f"catalog-{self.count}.db")
        apply_file(database, file)
        arrays, meta = compile_catalog(load_catalog(database), self.count, "https://dsp.example", now_s)
        database.dispose()
        return Snapshot(arrays, meta, self.count)

    def people(self, person: dict[str, Any] | None) -> Config:
        root = self.root / f"people-{self.count}"
        if person is not None:
            record = np.zeros(1, PROFILE)
            for name in ("intent", "risk", "affinity"):
                record[name] = 255
            record["segment_expiry_d"] = 65535
            for name, value in person["profile"].items():
                if name == "segments":
                    record["n_segments"] = len(value)
                    record["segments"][0] = sorted(value) + [0] * (MAX_SEGMENTS - len(value))
                else:
                    record[name] = value
            keys = [
                identity_key(KINDS[kind], text, self.pepper, 1 if kind == "buyeruid" else 0)
                for kind, text in person["ids"].items()
            ]
            with LmdbWriter(profiles_path(root)) as writer:
                writer.write(record, np.frombuffer(b"".join(keys), np.uint8).reshape(1, len(keys), 16))
        return Config(data_dir=str(root))

    def supplied(self, scenario: dict[str, Any]) -> Config:
        """The configuration with the scenario's files below ``supply`` and its settings of them."""
        directory = self.config.path("supply")
        shutil.rmtree(directory, ignore_errors=True)
        for name, text in scenario.get("supply", {}).items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        settings = msgspec.convert(scenario.get("supply_settings", {}), SupplyConfig)
        return msgspec.structs.replace(self.config, supply=settings)

    def engine(self, scenario: dict[str, Any]) -> Engine:
        now = dt.datetime.fromisoformat(scenario["now"])
        snapshot = self.snapshot(scenario["catalog"], now.timestamp())
        return Engine.open(
            self.supplied(scenario),
            snapshot=snapshot,
            store=open_profiles(self.people(scenario["person"])),
            scorer=self.scorer,
            slices=Slices.fixed(snapshot.li_i[:, 0].copy(), scenario.get("budget_micros", 10**12)),
            signer=self.signer,
            metrics=Metrics.memory(),
            clock=lambda: int(now.timestamp() * 1e9),
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("scenarios"))


def body_of(request: dict[str, Any], wire: str) -> bytes:
    return json.dumps(request).encode() if wire == "json" else json_to_pb(request).SerializeToString()


def response_of(payload: bytes, wire: str) -> dict[str, Any]:
    if wire == "json":
        return dict(json.loads(payload))
    return pb_to_json(openrtb_pb2.BidResponse.FromString(payload))


def line_items_of(engine: Engine) -> dict[str, str]:
    """Names of line items by the creative id that a bid shows as crid."""
    meta = engine.plan.snapshot.meta
    names = {item["id"]: item["name"] for item in meta["line_items"]}
    return {str(creative["id"]): names[creative["line_item_id"]] for creative in meta["creatives"]}


def check_bids(response: dict[str, Any], expected: dict[str, Any], names: dict[str, str]) -> None:
    bids = [bid for seat in response["seatbid"] for bid in seat["bid"]]
    wanted = expected["bids"]
    assert len(bids) == len(wanted), bids
    for bid, want in zip(bids, wanted, strict=True):
        for key, value in want.items():
            if key == "line_item":
                assert names[bid["crid"]] == value
            elif key == "adm_contains":
                for text in value:
                    assert text in bid["adm"]
            elif key == "price":
                assert bid["price"] == pytest.approx(value, abs=1e-9)
            else:
                assert bid.get(key) == value, (key, bid.get(key))
    if "cur" in expected:
        assert response["cur"] == expected["cur"]
    if "seat" in expected:
        assert [seat["seat"] for seat in response["seatbid"]] == [expected["seat"]]


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_scenario(file: Path, stage: Stage) -> None:
    change = yaml.safe_load(file.read_text())
    scenario = merge(
        BASE, {k: v for k, v in change.items() if k not in ("person", "expect", "why", "wire", *SHORT_CUTS)}
    )
    scenario["catalog"] = shaped(scenario, change)
    scenario["person"] = None if change.get("person", 0) is None else merge(BASE["person"], change.get("person", {}))
    expected = change["expect"]
    engine = stage.engine(scenario)
    try:
        exchange = engine.exchange_of(scenario["exchange"])
        for wire in [change["wire"]] if "wire" in change else ["json", "protobuf"]:
            body = body_of(scenario["request"], wire)
            kind, payload = engine.decide([body], [OFFSET[wire]], [exchange], None, nbr_bodies=True)[0]
            if "error" in expected:
                assert kind == BAD
                assert expected["error"] in payload.decode()
                continue
            response = response_of(payload, wire)
            assert response["id"] == scenario["request"]["id"]
            if "nbr" in expected:
                assert (response.get("nbr"), kind != BID) == (expected["nbr"], True), response
            else:
                assert kind == BID, response
                check_bids(response, expected, line_items_of(engine))
    finally:
        engine.close()
