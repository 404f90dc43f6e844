"""Golden pairs: for each profile a request as its exchange's documents show it, and the response they ask for.

`golden/NAME.yaml`: ``source`` of the facts; ``request`` (``tail``: protobuf bytes that JSON can't say, in hex);
``response``, with TOKEN and ID where ours differ from run to run and without markup; ``refused``, a change of the
request and what a no-bid then looks like; ``odd``, further changes (``raw``: another body) and the price that is bid,
null for a no-bid, or a text of the error. No code is needed to add one.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsp.base.config import BidderConfig, Config
from dsp.base.metrics import Metrics
from dsp.base.token import Signer
from dsp.bidder.answer import BAD, BID, NO_BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.compile import compile_catalog
from dsp.catalog.profile import shipped, shipped_names
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.ledger.ticket import charge_micros, open_ticket
from dsp.model.bootstrap import bootstrap_model
from dsp.model.score import Scorer
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_pb, pb_to_json
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

HERE = Path(__file__).parent
GOLDEN = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "golden").glob("*.yaml"))}
NOW = dt.datetime(2026, 3, 4, 12, 10, tzinfo=dt.UTC)
ODD = [(name, k) for name, golden in GOLDEN.items() for k in range(len(golden.get("odd", [])))]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("exchanges")
    config = Config(data_dir=str(root), bidder=BidderConfig(log_decisions=False, profile_reads=False))
    database = open_catalog(root / "catalog.db")
    apply_file(database, HERE / "catalog.yaml")
    arrays, meta = compile_catalog(load_catalog(database), 1, "https://dsp.example", NOW.timestamp())
    database.dispose()
    snapshot = Snapshot(arrays, meta, 1)
    made = Engine.open(
        config,
        snapshot=snapshot,
        scorer=Scorer.load(bootstrap_model(config)),
        slices=Slices.fixed(snapshot.li_i[:, 0].copy(), 10**12),
        signer=Signer({1: b"k" * 32}),
        metrics=Metrics.memory(),
        clock=lambda: int(NOW.timestamp() * 1e9),
    )
    yield made
    made.close()


def merge(base: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7396), but a list of objects is merged into the first element of one."""
    if isinstance(base, list) and isinstance(change, dict):
        return [merge(base[0], change), *base[1:]]
    if not isinstance(change, dict) or not isinstance(base, dict):
        return copy.deepcopy(change)
    out = dict(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def wire_of(name: str) -> int:
    return FMT_PROTOBUF if name in shipped_names() and shipped(name).wire == "protobuf" else FMT_JSON


def asked(engine: Engine, name: str, request: Any, tail: str = "") -> tuple[int, bytes]:
    if isinstance(request, str):
        body = request.encode()
    elif wire_of(name) == FMT_PROTOBUF:
        body = json_to_pb(request).SerializeToString() + bytes.fromhex(tail)
    else:
        body = json.dumps(request).encode()
    return engine.decide([body], [wire_of(name)], [engine.exchange_of(name)])[0]


def read(name: str, payload: bytes) -> dict[str, Any]:
    if wire_of(name) == FMT_JSON:
        return dict(json.loads(payload))
    return pb_to_json(openrtb_pb2.BidResponse.FromString(payload))


def shown(name: str, payload: bytes) -> dict[str, Any]:
    """A response with what differs from run to run named, and without its markup."""
    response = read(name, payload)
    for seat in response.get("seatbid", []):
        for bid in seat["bid"]:
            assert re.search(r"/c/[A-Za-z0-9_-]{40,}", bid.pop("adm"))
            assert re.fullmatch("[0-9a-f]{16}", bid["id"])
            bid["id"] = "ID"
            for url in ("nurl", "burl", "lurl"):
                if url in bid:
                    bid[url] = re.sub(r"(?<=/[nbl]/)[A-Za-z0-9_-]{40,}", "TOKEN", bid[url])
    return response


def test_every_profile_has_a_golden_pair_with_its_source() -> None:
    assert set(GOLDEN) == {*shipped_names(), "ours"}
    assert all(golden["source"] and golden["odd"] for golden in GOLDEN.values())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_response_is_what_the_exchange_asks_for(engine: Engine, name: str) -> None:
    golden = GOLDEN[name]
    kind, payload = asked(engine, name, golden["request"], golden.get("tail", ""))
    assert kind == BID, payload
    assert shown(name, payload) == golden["response"]


def test_an_exchanges_fee_is_part_of_what_a_bid_may_cost(engine: Engine) -> None:
    kind, payload = asked(engine, "costly", GOLDEN["openrtb"]["request"])
    assert kind == BID
    bid = json.loads(payload)["seatbid"][0]["bid"][0]
    assert bid["price"] == 3.2  # the line item may pay 4 at most, a quarter on top of the price included
    token = bid["burl"].partition("/b/")[2].partition("?")[0]
    ticket = open_ticket(engine.signer, token)
    assert ticket.reserve_micros == 4_000
    assert (charge_micros(ticket, 3_200_000), charge_micros(ticket, 1_000_000)) == (4_000, 1_250)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_no_bid_looks_as_the_exchange_wants(engine: Engine, name: str) -> None:
    refused = GOLDEN[name]["refused"]
    kind, payload = asked(engine, name, merge(GOLDEN[name]["request"], refused["change"]))
    assert kind == NO_BID
    assert (read(name, payload) if payload else None) == refused["response"]


@pytest.mark.parametrize(("name", "k"), ODD)
def test_odd_input_is_taken_or_refused_as_its_dialect_says(engine: Engine, name: str, k: int) -> None:
    golden, odd = GOLDEN[name], GOLDEN[name]["odd"][k]
    request = odd["raw"] if "raw" in odd else merge(golden["request"], odd["change"])
    kind, payload = asked(engine, name, request, odd.get("tail", golden.get("tail", "")))
    expected = odd["expect"]
    if isinstance(expected, str):
        assert kind == BAD
        assert expected in payload.decode()
    elif expected is None:
        assert kind == NO_BID, payload
    else:
        assert kind == BID, payload
        assert read(name, payload)["seatbid"][0]["bid"][0]["price"] == pytest.approx(expected)
