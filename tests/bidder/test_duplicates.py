"""One impression through several paths: which copies are bid on, and what is learned of where the cheaper one comes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scenarios import BASE, Stage, merge

from dsp.base.config import Config, SupplyConfig
from dsp.base.metrics import SUPPLY
from dsp.bidder.answer import BID
from dsp.bidder.duplicates import UNIT_NS, Duplicates, open_duplicates
from dsp.openrtb.codes import NBR_DUPLICATE
from dsp.openrtb.columns import FMT_JSON

CHEAP, FAIR, DEAR = range(3)  # exchanges, by fee
FEES = {"alpha": 0, "beta": 0.1, "gamma": 0.25}
WINDOW_MS = 400.0


class Paths:
    """An engine that knows of copies, on a clock of its own."""

    def __init__(self, stage: Stage, root: Path) -> None:
        scenario = copy.deepcopy(BASE)
        more = {"currency": "USD", "allowance_ms": 10, "tmax_ms": 200, "exp_s": 60}
        scenario["catalog"]["exchanges"] = [
            {"name": name, "id": i, "fee": fee, **more} for i, (name, fee) in enumerate(FEES.items(), 1)
        ]
        self.engine = stage.engine(scenario)
        config = Config(data_dir=str(root), supply=SupplyConfig(duplicates_ms=WINDOW_MS))
        self.known = Duplicates(config)
        self.engine.duplicates = self.known
        self.now_ns = 10**15
        check = self.known.check

        def on_time(*args: Any) -> None:
            check(*args[:-1], self.now_ns)

        self.known.check = on_time  # type: ignore[method-assign]

    def ask(self, *asked: tuple[int, dict[str, Any]], after_ms: float = 0) -> list[int]:
        """No-bid reasons (0 for a bid) of a batch of (exchange, changes of the request)."""
        self.now_ns += int(after_ms * 1e6)
        bodies = [json.dumps(merge(BASE["request"], change)).encode() for _, change in asked]
        answers = self.engine.decide(bodies, [FMT_JSON] * len(asked), [x for x, _ in asked], None, True)
        return [0 if kind == BID else json.loads(payload)["nbr"] for kind, payload in answers]

    def refused(self) -> list[int]:
        counts = self.engine.metrics.counter("dsp_supply_refused_total")[:, SUPPLY.index("duplicate")]
        return [int(n) for n in counts[:3]]


def tid(name: str, **change: Any) -> dict[str, Any]:
    return {"source": {"tid": name}, **change}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("duplicates"))


@pytest.fixture
def paths(stage: Stage, tmp_path: Path) -> Paths:
    return Paths(stage, tmp_path)


def test_a_dearer_copy_of_what_was_bid_on_is_refused_and_counted(paths: Paths) -> None:
    assert paths.ask((FAIR, tid("a"))) == [0]
    assert paths.ask((DEAR, tid("a")), after_ms=100) == [NBR_DUPLICATE]
    assert paths.ask((DEAR, tid("b"))) == [0]  # another impression
    assert paths.refused() == [0, 0, 1]


def test_a_cheaper_copy_is_bid_on_whatever_came_before(paths: Paths) -> None:
    assert paths.ask((DEAR, tid("a"))) == [0]
    assert paths.ask((CHEAP, tid("a")), after_ms=20) == [0]
    assert paths.ask((FAIR, tid("a")), after_ms=20) == [NBR_DUPLICATE]


@pytest.mark.parametrize("order", [(DEAR, CHEAP), (CHEAP, DEAR)])
def test_of_one_batch_the_cheapest_is_bid_on_whichever_came_first(paths: Paths, order: tuple[int, int]) -> None:
    said = dict(zip(order, paths.ask(*((x, tid("a")) for x in order)), strict=True))
    assert said == {CHEAP: 0, DEAR: NBR_DUPLICATE}


def test_each_node_of_a_supply_chain_makes_a_path_dearer(paths: Paths) -> None:
    node = {"asi": "reseller.example", "sid": "1", "hp": 1}
    resold = {"source": {"tid": "a", "schain": {"ver": "1.0", "complete": 1, "nodes": [node] * 3}}}
    assert paths.ask((FAIR, tid("a"))) == [0]  # a tenth; three nodes keep three twentieths
    assert paths.ask((CHEAP, resold), after_ms=20) == [NBR_DUPLICATE]


def test_the_same_exchange_again_is_no_copy(paths: Paths) -> None:
    assert paths.ask((FAIR, tid("a")), (FAIR, tid("a"))) == [0, 0]
    assert paths.ask((FAIR, tid("a")), after_ms=50) == [0]


def test_a_copy_is_one_only_for_so_long(paths: Paths) -> None:
    assert paths.ask((CHEAP, tid("a"))) == [0]
    assert paths.ask((DEAR, tid("a")), after_ms=WINDOW_MS - 2 * UNIT_NS / 1e6) == [NBR_DUPLICATE]
    assert paths.ask((DEAR, tid("a")), after_ms=WINDOW_MS) == [0]


def test_what_got_no_bid_on_the_cheaper_path_is_left_to_the_dearer(paths: Paths) -> None:
    blocked = tid("a", badv=["lender.example"])
    assert paths.ask((CHEAP, blocked))[0] not in (0, NBR_DUPLICATE)
    assert paths.ask((DEAR, tid("a")), after_ms=20) == [0]


def test_without_a_transaction_id_place_address_and_format_tell_copies(paths: Paths) -> None:
    here = {"device": {**BASE["request"]["device"], "ip": "192.0.2.7"}}
    there = {"device": {**BASE["request"]["device"], "ip": "192.0.2.8"}}
    assert paths.ask((CHEAP, here)) == [0]
    assert paths.ask((DEAR, here), (DEAR, there), after_ms=20) == [NBR_DUPLICATE, 0]


def test_who_did_not_consent_is_not_told_by_address(paths: Paths) -> None:
    here = {"device": {**BASE["request"]["device"], "ip": "192.0.2.7"}, "regs": {"gdpr": 1}}
    first, second = paths.ask((CHEAP, here)), paths.ask((DEAR, here), after_ms=20)
    assert NBR_DUPLICATE not in first + second


def test_test_requests_are_neither_copies_nor_remembered(paths: Paths) -> None:
    assert paths.ask((CHEAP, tid("a", test=1))) == [0]
    assert paths.ask((DEAR, tid("a")), after_ms=20) == [0]
    assert paths.ask((DEAR, tid("a", test=1)), after_ms=20) == [0]


def test_where_the_cheaper_path_usually_follows_the_dearer_waits_for_it_and_learns_when_it_ends(paths: Paths) -> None:
    early = [
        paths.ask((DEAR, tid(f"a{i}")), after_ms=1) + paths.ask((CHEAP, tid(f"a{i}")), after_ms=20) for i in range(60)
    ]
    assert early[0] == [0, 0]  # at first both
    assert early[-1] == [NBR_DUPLICATE, 0]  # then the cheaper alone
    alone = [paths.ask((DEAR, tid(f"b{i}")), after_ms=1)[0] for i in range(60)]
    assert alone[0] == NBR_DUPLICATE
    assert alone[-1] == 0  # the cheaper path is gone: nothing is lost for long
    assert alone.index(0) < 20


def test_workers_of_a_host_know_of_each_others_bids(stage: Stage, tmp_path: Path) -> None:
    one, other = Paths(stage, tmp_path), Paths(stage, tmp_path)
    assert one.ask((CHEAP, tid("a"))) == [0]
    assert other.ask((DEAR, tid("a")), after_ms=20) == [NBR_DUPLICATE]


def test_a_rehearsal_leaves_nothing_to_be_a_copy_of(paths: Paths) -> None:
    with paths.engine.rehearsing():
        assert paths.ask((CHEAP, tid("a"))) == [0]
    assert paths.ask((DEAR, tid("a")), after_ms=20) == [0]


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    assert open_duplicates(Config(data_dir=str(tmp_path), supply=SupplyConfig(duplicates_ms=0))) is None
    assert open_duplicates(Config(data_dir=str(tmp_path))) is not None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 300), st.booleans()), min_size=1, max_size=40
    )
)
def test_it_does_what_a_dictionary_would(
    stage: Stage, tmp_path_factory: Any, asked: list[tuple[int, int, int, bool]]
) -> None:
    """One request at a time, before anything was learned: (exchange, impression, ms since the last, blocked)."""
    paths = Paths(stage, tmp_path_factory.mktemp("model"))
    model: dict[int, tuple[int, int, bool]] = {}  # impression -> unit, exchange, bid on
    for x, impression, after_ms, blocked in asked:
        paths.known.rates[:] = 0
        change = tid(f"t{impression}", **({"badv": ["lender.example"]} if blocked else {}))
        (said,) = paths.ask((x, change), after_ms=after_ms)
        unit = paths.now_ns // UNIT_NS
        seen = model.get(impression)
        if seen is not None and unit - seen[0] > round(WINDOW_MS * 1e6 / UNIT_NS):
            seen = None
        copied = seen is not None and seen[1] != x and seen[2] and x >= seen[1]
        assert (said == NBR_DUPLICATE) == copied, (x, impression, seen)
        if not copied and not (seen is not None and seen[1] == x):
            model[impression] = (unit, x, not blocked)
    assert np.count_nonzero(paths.known.table) <= 4
