"""Dialects: fields moved, values translated, units and odd types, each as the standard request would be read."""

import json
from typing import Any

import numpy as np
import pytest

from dsp.openrtb import columns as c
from dsp.openrtb.columns import Batch
from dsp.openrtb.decode import decode_batch, error_text
from dsp.openrtb.dialect import Dialect, DialectError, Dialects, compile_dialect, compile_dialects
from dsp.openrtb.hashing import hash_text
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

BATCH = Batch()


def read(dialect: Dialect, *bodies: bytes | dict[str, Any], fmt: int = c.FMT_JSON) -> Batch:
    """The bodies, in a dialect that is not the first of its snapshot."""
    words = Dialects(*compile_dialects([(d, {}) for d in (Dialect(numeric_ids=True), Dialect(), dialect)]))
    raw = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    decode_batch(BATCH, raw, [fmt] * len(raw), [2] * len(raw), words)
    return BATCH


def request(**members: Any) -> dict[str, Any]:
    return {"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], **members}


def test_a_moved_field_is_read_at_every_depth_and_an_unmoved_one_still() -> None:
    dialect = Dialect(
        fields={
            "imp.ext.rp.floor": "imp.bidfloor",
            "device.ext.advertising_identifier_x": "device.ifa",
            "gdpr_applies": "regs.gdpr",
            "imp.space": "imp.banner",
        }
    )
    body = request(
        gdpr_applies=1, device={"ext": {"advertising_identifier_x": "abc", "other": [1, {"x": 2}]}, "language": "de"}
    )
    body["imp"][0] = {"id": "1", "space": {"w": 728, "h": 90}, "ext": {"rp": {"floor": "1.5", "z": {}}, "q": 1}}
    batch = read(dialect, body)
    row, imp = batch.req[0], batch.imp[0]
    assert error_text(batch, 0) == ""
    assert (imp[c.I_FLOOR], imp[c.I_MEDIA], row[c.R_GDPR]) == (1_500_000, c.BANNER, 1)
    assert batch.pool[imp[c.I_B_SIZES0]] == 728 << 16 | 90
    assert batch.string(row, c.R_IFA_OFF) == b"abc"
    assert row[c.R_LANG] == hash_text("de")


def test_other_exchanges_in_the_batch_are_read_as_ever() -> None:
    words = Dialects(
        *compile_dialects([(Dialect(), {}), (Dialect(fields={"imp.price": "imp.bidfloor"}, floor_unit="0.01"), {})])
    )
    body = request()
    body["imp"][0] |= {"price": 200}
    raw = json.dumps(body).encode()
    decode_batch(BATCH, [raw, raw, raw], [c.FMT_JSON] * 3, [0, 1, 0], words)
    assert BATCH.imp[:3, c.I_FLOOR].tolist() == [0, 2_000_000, 0]


@pytest.mark.parametrize(
    ("unit", "sent", "micros"), [("0.01", 1234, 12_340_000), ("0.000001", 1_500_001, 1_500_001), ("0.01", 0.001, 10)]
)
def test_floors_come_in_the_dialects_unit_and_currency(unit: str, sent: float, micros: int) -> None:
    body = request()
    body["imp"][0] |= {"bidfloor": sent, "pmp": {"deals": [{"id": "d", "bidfloor": sent, "bidfloorcur": "USD"}]}}
    batch = read(Dialect(floor_unit=unit, floor_currency="CNY"), body)
    assert (batch.imp[0, c.I_FLOOR], batch.imp[0, c.I_FLOORCUR]) == (micros, hash_text("CNY"))
    assert (batch.deal[0, c.D_FLOOR], batch.deal[0, c.D_FLOORCUR]) == (micros, hash_text("USD"))


def test_values_are_translated_once_and_defaults_stand_in() -> None:
    dialect = Dialect(
        values={"device.os": {"1": "android", "2": "ios"}, "device.connectiontype": {"1": 2, "2": 1}},
        defaults={"at": 2, "imp.secure": 1},
    )
    batch = read(
        dialect,
        request(device={"os": 2, "connectiontype": 1}),
        request(device={"os": "1", "connectiontype": 2}, at=1),
    )
    assert batch.req[:2, c.R_OS].tolist() == [hash_text("ios"), hash_text("android")]
    assert batch.req[:2, c.R_CONNECTIONTYPE].tolist() == [2, 1]
    assert batch.req[:2, c.R_AT].tolist() == [2, 1]
    assert batch.imp[:2, c.I_SECURE].tolist() == [1, 1]


def test_a_known_key_can_get_another_meaning() -> None:
    body = request()
    body["imp"][0] |= {"bidfloor": 9, "min_price": 1}
    batch = read(Dialect(fields={"imp.bidfloor": "imp.tagid", "imp.min_price": "imp.bidfloor"}), body)
    assert (batch.imp[0, c.I_FLOOR], batch.imp[0, c.I_TAGID]) == (1_000_000, hash_text("9"))


def test_ids_as_numbers_are_taken_and_echoed_as_text() -> None:
    body = b'{"id":17,"imp":[{"id":3,"pmp":{"deals":[{"id":44}]}}]}'
    batch = read(Dialect(numeric_ids=True), body)
    assert error_text(batch, 0) == ""
    assert batch.string(batch.req[0], c.R_ID_OFF) == b"17"
    assert batch.string(batch.imp[0], c.I_ID_OFF) == b"3"
    assert batch.deal[0, c.D_ID] == hash_text("44")
    assert "no id" in error_text(read(Dialect(lenient=True), body), 0)


def test_a_lenient_dialect_ignores_wrong_types_but_not_broken_json() -> None:
    odd = b'{"id":"r","tmax":"soon","device":[],"user":"x","bcat":{"a":1},"imp":[{"id":"1","banner":{"w":"x","h":50}}]}'
    batch = read(Dialect(lenient=True), odd, odd[:-1], b'{"id":"r","imp":[{"id":"1","bidfloor":1e13}]}')
    assert error_text(batch, 0) == ""
    assert batch.req[0, c.R_IMPN] == 1
    assert batch.req[1, c.R_STATUS] == c.E_TRUNCATED
    assert batch.req[2, c.R_STATUS] == c.E_NUMBER
    assert "device" in error_text(read(Dialect(numeric_ids=True), b'{"id":"r","device":[],"imp":[{"id":"1"}]}'), 0)


def test_protobuf_extensions_are_read_by_number() -> None:
    message = openrtb_pb2.BidRequest(id="r")
    message.imp.add(id="1").banner.w = 300
    consent = b"\x12\x04CPxx"  # field 2
    user = b"\xfa\x3e" + bytes([len(consent)]) + consent  # field 1007 << 3 | 2 as a varint
    raw = message.SerializeToString() + b"\x32" + bytes([len(user)]) + user
    batch = read(Dialect(fields={"user.#1007.#2": "user.ext.consent"}), raw, fmt=c.FMT_PROTOBUF)
    assert error_text(batch, 0) == ""
    assert batch.string(batch.req[0], c.R_CONSENT_OFF) == b"CPxx"


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (Dialect(fields={"x": "imp.nothing"}), "no field of OpenRTB"),
        (Dialect(fields={"x": "imp.bidfloor"}), "another level"),
        (Dialect(fields={"imp.x": "imp.pmp.deals.bidfloor"}), "another level"),
        (Dialect(fields={"id.x": "tmax"}), "no object"),
        (Dialect(fields={f"ext.a{k}.x": "tmax" for k in range(30)}), "more than"),
        (Dialect(fields={"a_key_that_is_much_too_long": "tmax"}), "longer than"),
        (Dialect(floor_unit="much"), "not a decimal"),
        (Dialect(floor_unit="0"), "not a unit"),
        (Dialect(values={"user.consent": {"a": "b"}}), "can't be told apart"),
        (Dialect(defaults={"tmax": "soon"}), "whole number"),
    ],
)
def test_a_dialect_that_cannot_be_says_which_field(dialect: Dialect, message: str) -> None:
    with pytest.raises(DialectError, match=message):
        compile_dialect(dialect)


def test_every_key_of_a_large_dialect_is_found_and_no_other() -> None:
    rng = np.random.default_rng(5)
    names = {f"k{n}" + "x" * int(rng.integers(0, 20)) for n in rng.integers(0, 10**6, 300)}
    names = {name[:24] for name in names}
    dialect = Dialect(fields={f"device.{name}": "device.ifa" for name in names})
    for name in sorted(names)[:100]:
        batch = read(dialect, request(device={name: "me"}), request(device={name + "y": "other"}))
        assert batch.string(batch.req[0], c.R_IFA_OFF) == b"me"
        assert batch.req[1, c.R_IFA_LEN] == (5 if name + "y" in names else 0)


def test_seats_are_renamed_and_a_seat_of_nobody_is_nobodys() -> None:
    words = Dialects(*compile_dialects([(Dialect(), {"9121": "ours"})]))
    body = request(wseat=["9121", "ours"], bseat=["5"])
    body["imp"][0] |= {"pmp": {"deals": [{"id": "d", "wseat": ["9121"]}]}}
    decode_batch(BATCH, [json.dumps(body).encode()], [c.FMT_JSON], [0], words)
    row, deal = BATCH.req[0], BATCH.deal[0]
    assert BATCH.pool[row[c.R_WSEAT0] : row[c.R_WSEAT0] + 2].tolist() == [hash_text("ours"), 0]
    assert BATCH.pool[row[c.R_BSEAT0]] == 0
    assert BATCH.pool[deal[c.D_WSEAT0]] == hash_text("ours")
