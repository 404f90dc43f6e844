"""Without consent nothing is read, counted or left behind: every signal, every way it is sent, then a search.

The people of these requests are known to the store by every identifier that they carry, so whatever looked would find.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scenarios import BASE, OFFSET, Stage, body_of, merge

from dsp.audience.identity import KIND_BUYERUID, KIND_DIDMD5, KIND_IFA, KIND_USER_ID, identity_key, load_pepper
from dsp.audience.store import MAX_KEYS, StoreStats
from dsp.base.config import BidderConfig, Config
from dsp.base.metrics import Metrics
from dsp.base.token import TOKEN_CONSENT, TOKEN_PERSONALISED, TOKEN_TEXT_BYTES
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices

sys.path.insert(0, str(Path(__file__).parents[1] / "audience"))
from consent_strings import bits, tcf, text_of

VENDOR = BidderConfig().vendor_id
IDS = {
    "ifa": "5ca1ab1e-dead-4bad-8bad-c0ffee00d00d",
    "didmd5": "0badc0de0badc0de0badc0de0badc0de",
    "buyeruid": "buyer-5ca1ab1e-0001",
    "user": "user-5ca1ab1e-0002",
    "eid": "eid-5ca1ab1e-0003@mail.example",
    "ip": "203.0.113.77",
}
EVERYBODY = {
    "device": {"ifa": IDS["ifa"], "didmd5": IDS["didmd5"], "ip": IDS["ip"]},
    "user": {
        "id": IDS["user"],
        "buyeruid": IDS["buyeruid"],
        "eids": [{"source": "id.example", "uids": [{"id": IDS["eid"]}]}],
    },
}
ALL = tuple(range(1, 11))


def usnat(sale_opt_out: int) -> str:
    """A GPP string of section 7 alone, version 1."""
    header = bits(3, 6) + bits(1, 6) + bits(1, 12) + "0" + "0101" + "1"  # one section: Fibonacci 7 = 01011
    core = bits(1, 6) + bits(1, 2) * 6 + bits(sale_opt_out, 2) + bits(2, 2) * 2 + bits(0, 2) * 12 + bits(0, 2) * 2
    return text_of(header.ljust(len(header), "0")) + "~" + text_of(core + bits(0, 2) * 6)


def at(country: str) -> dict[str, Any]:
    return {"device": {"geo": {"country": country, "region": None, "city": None}}}


REFUSALS: dict[str, dict[str, Any]] = {
    "coppa": {"regs": {"coppa": 1}},
    "lmt": {"device": {"lmt": 1}},
    "dnt": {"device": {"dnt": 1}},
    "us_privacy": {"regs": {"us_privacy": "1YYN"}},
    "us_privacy, in ext": {"regs": {"ext": {"us_privacy": "1YYN"}}},
    "us_privacy, nonsense": {"regs": {"us_privacy": "yes"}},
    "gpp, sale opted out": {"regs": {"gpp": usnat(1), "gpp_sid": [7]}},
    "gpp, damaged": {"regs": {"gpp": "DB!!", "gpp_sid": [7]}},
    "gpp, a state we can't read": {"regs": {"gpp": "DBABBg~1YNN", "gpp_sid": [8]}},
    "gdpr, no string": {"regs": {"gdpr": 1}},
    "gdpr, in ext": {"regs": {"ext": {"gdpr": 1}}},
    "gdpr, damaged string": {"regs": {"gdpr": 1}, "user": {"consent": "CO!!"}},
    "gdpr, no purposes": {"regs": {"gdpr": 1}, "user": {"consent": tcf((), (VENDOR,))}},
    "gdpr, other vendors": {"regs": {"gdpr": 1}, "user": {"consent": tcf(ALL, (VENDOR + 1,))}},
    "gdpr, refused in ext": {"regs": {"gdpr": 1}, "user": {"ext": {"consent": tcf((), ())}}},
    "gdpr country, unset": at("DEU"),
    "gpp names tcf, none given": {"regs": {"gpp_sid": [2]}},
    "china, unset": at("CHN"),
    "china, no": merge(at("CHN"), {"regs": {"ext": {"pipl": 0}}}),
    "no country": at(None),  # type: ignore[arg-type]
}


class Spy:
    """A store that knows everybody, and remembers whom it was asked for."""

    def __init__(self) -> None:
        self.stats = StoreStats()
        self.asked = 0

    def read(self, keys: Any, wanted: Any, out: Any, found: Any, keys_per_person: int = MAX_KEYS) -> None:
        n = len(found)
        self.asked += int((wanted[: n * keys_per_person] != 0).sum())
        assert not keys[: n * keys_per_person][wanted[: n * keys_per_person] == 0].any()  # nothing hashed either
        out[:n] = 0
        out[:n, 0] = 1
        found[:] = 1

    def close(self) -> None:
        pass


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    stage = Stage(tmp_path / "data")
    snapshot = stage.snapshot(copy.deepcopy(BASE["catalog"]), 1_772_600_000)
    config = Config(data_dir=str(tmp_path / "data"), bidder=BidderConfig(log_decisions=True))
    spy = Spy()
    engine = Engine.open(
        config, snapshot=snapshot, store=spy, scorer=stage.scorer, signer=stage.signer,
        slices=Slices.fixed(snapshot.li_i[:, 0].copy(), 10**12), metrics=Metrics.memory(),
        clock=lambda: 1_772_626_200 * 10**9,
    )  # fmt: skip
    yield stage, engine, spy
    engine.close()


def person_in(stage: Stage, payload: bytes) -> tuple[bytes, int]:
    """The person and the flags of the token in a bid."""
    text = payload.decode("latin-1")
    start = text.index("/b/") + 3
    record = stage.signer.open(text[start : start + TOKEN_TEXT_BYTES])
    return bytes(record["person"].tobytes()), int(record["flags"])


@pytest.mark.parametrize("wire", ["json", "protobuf"])
def test_no_consent_no_trace(rig: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], wire: str) -> None:
    stage, engine, spy = rig
    request = merge(BASE["request"], EVERYBODY)
    bids = 0
    for name, change in REFUSALS.items():
        kind, payload = engine.decide([body_of(merge(request, change), wire)], [OFFSET[wire]], [0], None, True)[0]
        assert spy.asked == 0, name
        if kind == BID:  # on context alone
            bids += 1
            person, flags = person_in(stage, payload)
            assert not any(person), name
            assert not flags & (TOKEN_CONSENT | TOKEN_PERSONALISED), name
    assert bids >= 10
    kind, payload = engine.decide([body_of(request, wire)], [OFFSET[wire]], [0], None, True)[0]
    assert kind == BID
    assert spy.asked >= 3  # the same person, asked for as soon as nothing forbids it
    engine.close()
    written = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any("decisions" in str(path) for path in written)
    pepper = load_pepper(tmp_path / "data" / "secrets" / "pepper.json")
    keys = [
        identity_key(KIND_IFA, IDS["ifa"], pepper), identity_key(KIND_DIDMD5, IDS["didmd5"], pepper),
        identity_key(KIND_BUYERUID, IDS["buyeruid"], pepper, 1), identity_key(KIND_USER_ID, IDS["user"], pepper, 1),
    ]  # fmt: skip
    needles = [form for text in IDS.values() for form in (text.encode(), text.upper().encode())]
    needles += [form for key in keys for form in (key, key.hex().encode())]
    out = "".join(capfd.readouterr()).encode()
    for path, raw in [(Path("output"), out), *((path, path.read_bytes()) for path in written)]:
        for needle in needles:
            assert needle not in raw, path


def test_the_requests_say_no_and_nothing_else() -> None:
    """Without its signal each request would be joined: the list above tests refusals, not broken requests."""
    assert json.dumps(merge(BASE["request"], EVERYBODY)).count("5ca1ab1e") == 4
    assert len(REFUSALS) == 20
    assert np.unique([json.dumps(change, sort_keys=True) for change in REFUSALS.values()]).size == 20
