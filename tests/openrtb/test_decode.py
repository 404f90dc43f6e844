"""What the decoder refuses, cuts, tolerates and says, case by case."""

import json
import time
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from openrtb_reference import decoded, expected

from dsp.openrtb import columns as c
from dsp.openrtb import schema
from dsp.openrtb.columns import Batch
from dsp.openrtb.convert import json_to_pb
from dsp.openrtb.decode import decode_batch, error_text
from dsp.openrtb.hashing import hash_text
from dsp.openrtb.limits import MAX_BATCH, MAX_BODY_BYTES, MAX_DEALS_PER_IMP, MAX_DEPTH, MAX_IMPS, MAX_SIZES_PER_IMP
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

BATCH = Batch()
IMP = {"id": "1", "banner": {"w": 300, "h": 250}}


def decode(body: bytes | str | dict[str, Any] | Message, fmt: int = c.FMT_JSON) -> Any:
    """The request row of one body."""
    if isinstance(body, Message):
        body, fmt = body.SerializeToString(), c.FMT_PROTOBUF
    if isinstance(body, dict):
        body = json.dumps(body)
    decode_batch(BATCH, [body if isinstance(body, bytes) else body.encode()], [fmt])
    return BATCH.req[0]


def request(**members: Any) -> dict[str, Any]:
    return {"id": "r", "imp": [IMP], **members}


def imp(**members: Any) -> dict[str, Any]:
    return request(imp=[{**IMP, **members}])


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", c.E_TRUNCATED, "ends too early at byte 0"),
        (b"   ", c.E_TRUNCATED, "ends too early at byte 3"),
        (b"null", c.E_SYNTAX, "not valid JSON at byte 0"),
        (b"[]", c.E_SYNTAX, "not valid JSON at byte 0"),
        (b'"id"', c.E_SYNTAX, "not valid JSON at byte 0"),
        (b"{}", c.E_NO_ID, "no id"),
        (b'{"id":""}', c.E_NO_ID, "no id"),
        (b'{"id":7,"imp":[{"id":"1"}]}', c.E_NO_ID, "no id"),
        (b'{"id":"r"}', c.E_NO_IMP, "no imp"),
        (b'{"id":"r","imp":[]}', c.E_NO_IMP, "no imp"),
        (b'{"id":"r","imp":null}', c.E_NO_IMP, "no imp"),
        (b'{"id":"r","imp":{}}', c.E_TYPE, "wrong type at byte 16, in imp"),
        (b'{"id":"r","imp":[3]}', c.E_TYPE, "wrong type at byte 17, in imp"),
        (b'{"id":"r","imp":[null]}', c.E_TYPE, "in imp"),
        (b'{"id":"r","imp":[{}]}', c.E_IMP_ID, "an imp has no id"),
        (b'{"id":"r","imp":[{"id":1}]}', c.E_IMP_ID, "an imp has no id"),
        (b'{"id":"r","imp":[{"id":"1"},{"id":"1"}]}', c.E_DUP_IMP_ID, "same id"),
        (b'{"id":"r","imp":[{"id":"1","banner":{"w":"x"}}]}', c.E_TYPE, "in imp.banner.w"),
        (b'{"id":"r","imp":[{"id":"1","banner":[]}]}', c.E_TYPE, "in imp.banner"),
        (b'{"id":"r","imp":[{"id":"1","bidfloor":1e13}]}', c.E_NUMBER, "in imp.bidfloor"),
        (b'{"id":"r","imp":[{"id":"1","bidfloor":1e999}]}', c.E_NUMBER, "in imp.bidfloor"),
        (b'{"id":"r","imp":[{"id":"1","bidfloor":NaN}]}', c.E_SYNTAX, "in imp.bidfloor"),
        (b'{"id":"r","imp":[{"id":"1","bidfloor":-Infinity}]}', c.E_SYNTAX, "in imp.bidfloor"),
        (b'{"id":"r","imp":[{"id":"1"}]} x', c.E_SYNTAX, "at byte 30"),
        (b'{"id":"r","imp":[{"id":"1"}]}{}', c.E_SYNTAX, "at byte 29"),
        (b'{"id":"r","imp":[{"id":"1"}],}', c.E_SYNTAX, "at byte 29"),
        (b'{"id":"r","imp":[{"id":"1"},]}', c.E_SYNTAX, "at byte 28"),
        (b'{"id":"r\n","imp":[{"id":"1"}]}', c.E_SYNTAX, "at byte 8, in id"),
        (b'{"id":"r\\x","imp":[{"id":"1"}]}', c.E_SYNTAX, "in id"),
        (b'{"id":"r","tmax":01,"imp":[{"id":"1"}]}', c.E_SYNTAX, "at byte 18"),
        (b'{"id":"r\xff","imp":[{"id":"1"}]}', c.E_UTF8, "UTF-8 at byte 8"),
        (b'{"id":"r","imp":[{"id":"1"}],"device":{"ua":"\\ud800"}}', c.E_UTF8, "in device.ua"),
        (b'{"id":"r","imp":[{"id":"1"}]}\0', c.E_SYNTAX, "at byte 29"),
        (b'\xef\xbb\xbf{"id":"r","imp":[{"id":"1"}]}', c.E_SYNTAX, "at byte 0"),
    ],
)
def test_bad_json_says_what_and_where(body: bytes, status: int, text: str) -> None:
    row = decode(body)
    assert row[c.R_STATUS] == status
    assert text in error_text(BATCH, 0)
    assert row[c.R_IMPN] == 0
    assert BATCH.counts[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", c.E_NO_ID, "no id"),
        (b"\x0a", c.E_TRUNCATED, "ends too early at byte 0"),
        (b"\x0a\x05ab", c.E_TRUNCATED, "in id"),
        (b"\x0a\x01r", c.E_NO_IMP, "no imp"),
        (b"\x0a\x01r\x12\x00", c.E_IMP_ID, "no id"),
        (b"\x0a\x01r\x12\x03\x0a\x011\x12\x03\x0a\x011", c.E_DUP_IMP_ID, "same id"),
        (b"\x0a\x01\xff\x12\x03\x0a\x011", c.E_UTF8, "in id"),
        (b"\x0a\x01r\x12\x04\x0a\x02\xc0\x80", c.E_UTF8, "in imp.id"),
        (b"\x00\x01", c.E_SYNTAX, "not valid protobuf"),
        (b"\x0f", c.E_SYNTAX, "not valid protobuf"),
        (b"\x0c", c.E_SYNTAX, "not valid protobuf"),  # the end of a group that never began
        (b"\xff" * 11, c.E_SYNTAX, "not valid protobuf"),
        (b"\x0b\x0a\x01r", c.E_TRUNCATED, "too early"),  # a group that never ends
        (b"\x38" + b"\xff" * 10 + b"\x01", c.E_TRUNCATED, "in at"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", c.E_TRUNCATED, "in id"),
        (b"\x09\x00\x00", c.E_TRUNCATED, "too early"),
        (b"\x0d\x00\x00", c.E_TRUNCATED, "too early"),
    ],
)
def test_bad_protobuf_says_what_and_where(body: bytes, status: int, text: str) -> None:
    row = decode(body, c.FMT_PROTOBUF)
    assert row[c.R_STATUS] == status
    assert text in error_text(BATCH, 0)
    assert row[c.R_IMPN] == 0


@pytest.mark.parametrize("floor", [float("nan"), float("inf"), 2e12])
def test_protobuf_money_that_is_no_amount_is_refused(floor: float) -> None:
    message = json_to_pb(request())
    message.imp[0].bidfloor = floor
    assert decode(message)[c.R_STATUS] == c.E_NUMBER
    assert error_text(BATCH, 0).endswith("in imp.bidfloor")


def test_a_good_request_has_no_error_text() -> None:
    decode(request())
    assert error_text(BATCH, 0) == ""


# --- nesting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_may_nest_to_the_bound_and_no_further(opening: str, closing: str) -> None:
    levels = MAX_DEPTH - 1
    good = json.dumps(request())[:-1] + ',"x":' + opening * levels + "1" + closing * levels + "}"
    assert decode(good)[c.R_STATUS] == c.OK
    assert decode(good.replace(f'"x":{opening}', f'"x":{opening}{opening}', 1))[c.R_STATUS] == c.E_DEPTH
    for depth in (MAX_DEPTH, 1000, 300_000):
        deep = json.dumps(request())[:-1] + ',"x":' + opening * depth
        assert decode(deep)[c.R_STATUS] == c.E_DEPTH


def test_protobuf_groups_may_nest_to_the_bound_and_no_further() -> None:
    good = json_to_pb(request()).SerializeToString()
    group, end = b"\xbb\x06", b"\xbc\x06"  # field 103
    assert decode(good + group * MAX_DEPTH + end * MAX_DEPTH, c.FMT_PROTOBUF)[c.R_STATUS] == c.OK
    for depth in (MAX_DEPTH + 1, 300_000):
        assert decode(good + group * depth, c.FMT_PROTOBUF)[c.R_STATUS] == c.E_DEPTH
    assert decode(good + group + b"\xc4\x06", c.FMT_PROTOBUF)[c.R_STATUS] == c.E_SYNTAX


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_of_a_thousand_imps_the_first_are_considered(to_wire: Any) -> None:
    row = decode(to_wire(request(imp=[{**IMP, "id": str(k)} for k in range(1000)])))
    assert row[c.R_STATUS] == c.OK
    assert row[c.R_IMPN] == MAX_IMPS
    assert row[c.R_IMPS_DROPPED] == 1000 - MAX_IMPS
    assert [BATCH.string(BATCH.imp[k], c.I_ID_OFF) for k in range(MAX_IMPS)] == [b"%d" % k for k in range(MAX_IMPS)]


def test_dropped_imps_are_still_checked_for_syntax_but_for_nothing_else() -> None:
    imps = ",".join(f'{{"id":"{k}"}}' for k in range(MAX_IMPS))
    assert decode(f'{{"id":"r","imp":[{imps},{{"id":"1","banner":7}}]}}')[c.R_STATUS] == c.OK
    assert decode(f'{{"id":"r","imp":[{imps},{{"id":tru}}]}}')[c.R_STATUS] == c.E_SYNTAX


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_lists_are_cut_at_their_bounds(to_wire: Any) -> None:
    banner = {"format": [{"w": 1 + k, "h": 1} for k in range(200)]}
    pmp = {"deals": [{"id": str(k)} for k in range(200)]}
    decode(to_wire(imp(banner=banner, pmp=pmp, video={"rqddurs": list(range(1, 200))})))
    assert BATCH.imp[0, c.I_B_SIZESN] == MAX_SIZES_PER_IMP
    assert BATCH.imp[0, c.I_DEALN] == MAX_DEALS_PER_IMP == BATCH.counts[1]
    assert BATCH.imp[0, c.I_V_RQDDURSN] == 64


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_block_lists_are_never_cut(to_wire: Any) -> None:
    domains = [f"d{k}.com" for k in range(30_000)]
    row = decode(to_wire(request(badv=domains)))
    start, count = row[c.R_BADV0], row[c.R_BADVN]
    assert BATCH.pool[start : start + count].tolist() == [hash_text(d) for d in domains]


def test_interleaved_lists_cost_linear_time_and_room() -> None:
    good = json_to_pb(request()).SerializeToString()
    pair = b"\x62\x01a\x6a\x01b"  # bcat, badv
    count = (MAX_BODY_BYTES - len(good)) // len(pair)
    started = time.perf_counter()
    row = decode(good + pair * count, c.FMT_PROTOBUF)
    assert time.perf_counter() - started < 2
    assert row[c.R_STATUS] == c.OK
    for column, value in ((c.R_BCAT0, "a"), (c.R_BADV0, "b")):
        start = row[column]
        assert row[column + 1] == count
        assert (BATCH.pool[start : start + count] == hash_text(value)).all()
    assert BATCH.counts[2] <= 8 * count


def test_a_full_batch_of_the_largest_bodies_fits() -> None:
    batch = Batch(text_bytes=1 << 16)
    junk = "\\u00e9" * ((MAX_BODY_BYTES - 100) // 6)
    big = ('{"id":"r","imp":[{"id":"1"}],"device":{"ua":"' + junk + '"}}').encode()
    packed = json_to_pb(request()).SerializeToString() + b"\x92\x01" * 0 + b"\x62\x01a" * ((MAX_BODY_BYTES - 99) // 3)
    decode_batch(batch, [big, packed], [c.FMT_JSON, c.FMT_PROTOBUF])
    assert batch.req[:2, c.R_STATUS].tolist() == [c.OK, c.OK]
    assert batch.string(batch.req[0], c.R_UA_OFF).decode() == "é" * ((MAX_BODY_BYTES - 100) // 6)
    many = [json.dumps(request(id=str(k))).encode() for k in range(MAX_BATCH)]
    decode_batch(batch, many, [c.FMT_JSON] * MAX_BATCH)
    assert [batch.string(row, c.R_ID_OFF) for row in batch.req] == [b"%d" % k for k in range(MAX_BATCH)]


def test_a_request_with_too_many_values_is_refused_alone() -> None:
    batch = Batch(text_bytes=8192)
    batch.pool = np.zeros(8192, np.int64)  # as large as these bodies call for, but not for what they make of it
    hoard = json_to_pb(request()).SerializeToString() + b"\x62\x01a\x6a\x01b" * 600
    good = json.dumps(request(bcat=["x"])).encode()
    decode_batch(batch, [hoard, good, hoard, good], [1, 0, 1, 0])
    assert batch.req[:4, c.R_STATUS].tolist()[1::2] == [c.OK, c.OK]
    for status in batch.req[:4, c.R_STATUS].tolist()[::2]:
        assert status in (c.OK, c.E_LIMIT)
    assert batch.pool[batch.req[3, c.R_BCAT0]] == hash_text("x")


# --- what is tolerated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "micros"),
    [
        ("0.1", 100_000), ("0.10000000000000001", 100_000), ("0.30000000000000004", 300_001), ("1e-7", 1), ("0", 0),
        ("1.0000001", 1_000_001), ("2", 2_000_000), ("2.5e2", 250_000_000), ("-3", 0), ("-0.0", 0), ('"0.25"', 250_000),
        ("1E+3", 1_000_000_000), ("1e12", 10**18), ("0.29", 290_000), ("4.35", 4_350_000), ("null", 0), ('""', 0),
    ],
)  # fmt: skip
def test_a_floor_is_rounded_up_and_never_understated(floor: str, micros: int) -> None:
    decode(f'{{"id":"r","imp":[{{"id":"1","bidfloor":{floor}}}]}}')
    assert error_text(BATCH, 0) == ""
    assert BATCH.imp[0, c.I_FLOOR] == micros


def test_json_and_protobuf_floors_agree() -> None:
    for k in range(1, 2000):
        floor = k * 0.013
        decode(imp(bidfloor=floor))
        from_json = int(BATCH.imp[0, c.I_FLOOR])
        decode(json_to_pb(imp(bidfloor=floor)))
        assert BATCH.imp[0, c.I_FLOOR] == from_json
        assert from_json / 1e6 >= floor > (from_json - 1) / 1e6


def test_flags_numbers_and_lists_come_in_many_shapes() -> None:
    row = decode(request(test=True, tmax="120", at=2.0, bcat="IAB1", device={"lmt": "1", "dnt": False, "js": []}))
    assert row[[c.R_TEST, c.R_TMAX, c.R_AT, c.R_LMT, c.R_DNT]].tolist() == [1, 120, 2, 1, 0]
    assert BATCH.pool[row[c.R_BCAT0]] == hash_text("IAB1")
    decode(imp(video={"protocols": 3, "api": ["7", None, 99, -1, 0, 62, 63]}, secure=1))
    assert BATCH.imp[0, c.I_V_PROTOCOLS] == 1 << 3
    assert BATCH.imp[0, c.I_V_API] == 1 << 7 | 1 << 62
    assert BATCH.imp[0, c.I_SECURE] == 1


def test_huge_numbers_are_clamped() -> None:
    row = decode('{"id":"r","tmax":99999999999999999999999999,"at":-1e300,"imp":[{"id":"1"}]}')
    assert row[[c.R_TMAX, c.R_AT]].tolist() == [2**31 - 1, -(2**31)]


def test_what_is_not_said_is_told_from_false() -> None:
    row = decode(request())
    unset = [c.R_COPPA, c.R_GDPR, c.R_LMT, c.R_DNT, c.R_PIPL, c.R_SCHAIN_COMPLETE]
    assert row[unset].tolist() == [-1] * 6
    assert BATCH.imp[0, [c.I_SECURE, c.I_V_SKIP]].tolist() == [-1, -1]
    row = decode(request(regs={"coppa": 0, "gdpr": 0, "ext": {"pipl": 0}}, device={"lmt": 0, "dnt": 0}))
    assert row[unset].tolist() == [0, 0, 0, 0, 0, -1]


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_the_direct_field_wins_over_its_old_place_under_ext(to_wire: Any) -> None:
    regs = {"ext": {"gdpr": 1, "us_privacy": "1YYN", "pipl": 1}}
    user = {"ext": {"consent": "old", "eids": [{"source": "s", "uids": [{"id": "u"}]}]}}
    row = decode(to_wire(request(regs=regs, user=user, source={"ext": {"schain": {"complete": 1, "nodes": [{}]}}})))
    assert row[[c.R_GDPR, c.R_PIPL, c.R_SCHAIN_COMPLETE, c.R_SCHAIN_NODES, c.R_EIDSN]].tolist() == [1, 1, 1, 1, 1]
    assert BATCH.string(row, c.R_USP_OFF) == b"1YYN"
    assert BATCH.string(row, c.R_CONSENT_OFF) == b"old"
    row = decode(to_wire(request(regs={"gdpr": 0, **regs}, user={"consent": "new", **user})))
    assert row[c.R_GDPR] == 0
    assert BATCH.string(row, c.R_CONSENT_OFF) == b"new"


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
@pytest.mark.parametrize("place", ["schain", "ext"])
def test_the_nodes_of_a_supply_chain_keep_their_order(to_wire: Any, place: str) -> None:
    nodes = [{"asi": "Alpha.example", "sid": "pub-1"}, {"asi": "beta.example"}, {"sid": "9"}]
    chain = {"complete": 1, "nodes": nodes}
    source = {"tid": "t-1", **({"schain": chain} if place == "schain" else {"ext": {"schain": chain}})}
    row = decode(to_wire(request(source=source)))
    start, count = int(row[c.R_SCHAIN0]), int(row[c.R_SCHAIN_NODES])
    expected = [hash_text(text) for text in ("alpha.example", "pub-1", "beta.example", "", "", "9")]
    assert BATCH.pool[start : start + c.NODE_WIDTH * count].tolist() == expected
    assert row[c.R_TID] == hash_text("t-1")


@pytest.mark.parametrize(
    ("country", "hashed"),
    [("USA", "usa"), ("US", "usa"), ("us", "usa"), ("GB", "GBR"), ("CN", "CHN"), ("FR", "FRA"), ("QQ", "QQ")],
)
def test_two_letter_countries_are_understood(country: str, hashed: str) -> None:
    assert decode(request(device={"geo": {"country": country}}))[c.R_COUNTRY] == hash_text(hashed)


@pytest.mark.parametrize(("region", "hashed"), [("CA", "ca"), ("US-CA", "ca"), ("gb-eng", "ENG"), ("A-B", "a-b")])
def test_regions_lose_their_country(region: str, hashed: str) -> None:
    assert decode(request(device={"geo": {"region": region}}))[c.R_REGION] == hash_text(hashed)


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("foo.com", b"foo.com"), ("www.foo.com", b"foo.com"), ("WWW.Foo.com", b"Foo.com"), ("foo.com:8080", b"foo.com"),
        ("http://foo.com/x?y", b"foo.com"), ("https://u:p@www.foo.com./", b"foo.com"), ("//foo.com#a", b"foo.com"),
        ("", b""), ("www.", b"www"), ("http://", b""),
    ],
)  # fmt: skip
def test_a_domain_is_its_host(domain: str, host: bytes) -> None:
    row = decode(request(site={"domain": domain}))
    assert BATCH.string(row, c.R_HOST_OFF) == host
    assert row[c.R_DOMAIN] == hash_text(host)


def test_a_page_stands_in_for_a_missing_domain() -> None:
    row = decode(request(site={"page": "https://www.foo.com/a\\b"}))
    assert row[c.R_DOMAIN] == hash_text("foo.com")


def test_of_two_channels_the_last_counts() -> None:
    row = decode('{"site":{"id":"s","cat":["a"]},"app":{"bundle":"b"},"id":"r","imp":[{"id":"1"}]}')
    assert row[[c.R_CHANNEL, c.R_CH_ID, c.R_CATN]].tolist() == [c.CHANNEL_APP, 0, 0]
    assert row[c.R_BUNDLE] == hash_text("b")


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_sizes_are_formats_and_the_banners_own(to_wire: Any) -> None:
    formats = [{"w": 300, "h": 250}, {"wratio": 4, "hratio": 3}, {}]
    decode(to_wire(imp(banner={"w": 320, "h": 50, "format": formats})))
    row = BATCH.imp[0]
    assert BATCH.pool[row[c.I_B_SIZES0] :][: row[c.I_B_SIZESN]].tolist() == [300 << 16 | 250, 320 << 16 | 50]
    assert row[c.I_B_FLEX] == 1


@pytest.mark.parametrize("size", [{"w": 5}, {"w": -1, "h": 1}, {"w": 70_000, "h": 50}, {"w": 1, "h": 1 << 40}])
def test_a_size_nothing_can_have_is_kept_as_one_that_nothing_fits(size: dict[str, int]) -> None:
    decode(imp(banner={"format": [size]}))
    assert BATCH.pool[BATCH.imp[0, c.I_B_SIZES0]] == c.NO_SIZE


# --- strings ----------------------------------------------------------------------------------------------------------


def test_ids_are_kept_as_written_and_other_strings_are_unescaped() -> None:
    row = decode(
        '{"id":"r\\u00e9\\"","imp":[{"id":"\\/1","pmp":{"deals":[{"id":"d\\u0041"}]}}],'
        '"device":{"ua":"\\ud83d\\ude00\\n\\t\\u00e9"},"\\u0075ser":{"id":"x"}}'
    )
    assert BATCH.string(row, c.R_ID_OFF) == b'r\\u00e9\\"'
    assert BATCH.string(BATCH.imp[0], c.I_ID_OFF) == b"\\/1"
    assert BATCH.string(BATCH.deal[0], c.D_ID_OFF) == b"d\\u0041"
    assert BATCH.deal[0, c.D_ID] == hash_text("dA")
    assert BATCH.string(row, c.R_UA_OFF).decode() == "\U0001f600\n\té"
    assert BATCH.string(row, c.R_USER_ID_OFF) == b"x"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 30, 31, 32, 33, 63, 64, 65, 1000])
def test_strings_of_any_length_end_where_they_end(length: int) -> None:
    for tail in ("", '\\"', "é"):
        text = "a" * length + tail
        row = decode(f'{{"id":"r","imp":[{{"id":"1"}}],"device":{{"x{text}":"{text}","ua":"{text}"}}}}')
        assert error_text(BATCH, 0) == ""
        assert BATCH.string(row, c.R_UA_OFF).decode() == text.replace("\\", "")


def test_a_deal_whose_id_is_no_string_is_no_deal() -> None:
    decode(imp(pmp={"deals": [{"id": 7}, {"bidfloor": 1}, {"id": "d"}], "private_auction": 1}))
    assert BATCH.imp[0, [c.I_DEALN, c.I_PRIVATE_AUCTION]].tolist() == [1, 1]


# --- native -----------------------------------------------------------------------------------------------------------

ASSETS = [
    {"id": 1, "required": 1, "title": {"len": 90}},
    {"id": 2, "img": {"type": 3, "wmin": 300, "h": 250}},
    {"id": 3, "data": {"type": 2, "len": 140}},
]
ASSET_ROWS = [
    1,
    1,
    c.ASSET_TITLE,
    0,
    90,
    0,
    0,
    0,
    2,
    0,
    c.ASSET_IMG,
    3,
    0,
    300,
    250,
    1,
    3,
    0,
    c.ASSET_DATA,
    2,
    140,
    0,
    0,
    0,
]


@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_native_requests_are_read_bare_or_wrapped(to_wire: Any, wrapped: bool, as_text: bool) -> None:
    document: Any = {"ver": "1.2", "assets": ASSETS}
    document = {"native": document} if wrapped else document
    decode(to_wire(imp(native={"request": json.dumps(document) if as_text else document, "ver": "1.1"})))
    row = BATCH.imp[0]
    assert row[[c.I_N_BAD, c.I_N_WRAPPED, c.I_N_VER, c.I_N_ASSETSN]].tolist() == [0, int(wrapped), 12, 3]
    assert BATCH.pool[row[c.I_N_ASSETS0] :][: len(ASSET_ROWS)].tolist() == ASSET_ROWS
    assert json.loads(BATCH.string(row, c.I_N_REQ_OFF)) == document
    assert row[c.I_MEDIA] == c.BANNER | c.NATIVE


@pytest.mark.parametrize(
    "native",
    ["not json", "[]", "", '{"assets":[', '{"assets":7}', '{"assets":[{"id":"x"}]}', None, '{"a":"\\ud800"}\x01'],
)
@pytest.mark.parametrize("to_wire", [json.dumps, json_to_pb])
def test_an_unreadable_native_request_only_takes_native_away(native: str | None, to_wire: Any) -> None:
    row = decode(to_wire(imp(native={"request": native})))
    assert row[c.R_STATUS] == c.OK
    assert BATCH.imp[0, [c.I_N_BAD, c.I_MEDIA, c.I_N_ASSETSN]].tolist() == [1, c.BANNER, 0]


def test_equal_native_requests_have_equal_hashes() -> None:
    hashes = []
    for text in ('{"assets":[]}', '{"assets":[]}', '{"Assets":[]}', '{"assets":[] }'):
        decode(imp(native={"request": text}))
        hashes.append(int(BATCH.imp[0, c.I_N_HASH]))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


# --- protobuf's own ---------------------------------------------------------------------------------------------------


def test_repeated_numbers_may_be_packed_or_not() -> None:
    good = json_to_pb(request()).SerializeToString()
    for api in (b"\x50\x03\x50\x05", b"\x52\x02\x03\x05", b"\x52\x01\x03\x50\x05"):
        banner = b"\x12" + bytes([len(api)]) + api
        body = good + b"\x12" + bytes([3 + len(banner)]) + b"\x0a\x012" + banner
        assert decode(body, c.FMT_PROTOBUF)[c.R_STATUS] == c.OK
        assert BATCH.imp[1, c.I_B_API] == 1 << 3 | 1 << 5


def test_a_split_submessage_is_one_and_the_last_scalar_counts() -> None:
    first = openrtb_pb2.BidRequest(device=openrtb_pb2.BidRequest.Device(ua="a", os="x"), tmax=1)
    second = json_to_pb(request(device={"ua": "b", "geo": {"country": "DEU"}}, tmax=-2))
    row = decode(first.SerializeToString() + second.SerializeToString(), c.FMT_PROTOBUF)
    assert BATCH.string(row, c.R_UA_OFF) == b"b"
    assert row[c.R_OS] == hash_text("x")
    assert row[c.R_TMAX] == -2


def test_a_field_of_another_wire_type_is_unknown() -> None:
    good = json_to_pb(request(tmax=5)).SerializeToString()
    row = decode(good + b"\x42\x01\x07" + b"\x41" + bytes(8) + b"\x45" + bytes(4), c.FMT_PROTOBUF)
    assert row[[c.R_STATUS, c.R_TMAX]].tolist() == [c.OK, 5]


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_mixes_wires_and_keeps_order() -> None:
    requests = [
        request(id=f"r{k}", imp=[{**IMP, "id": f"{k}-{j}"} for j in range(k % 4 + 1)]) for k in range(MAX_BATCH)
    ]
    bodies = [json.dumps(r).encode() if k % 2 else json_to_pb(r).SerializeToString() for k, r in enumerate(requests)]
    bodies[7] = bodies[7][:-9]
    decode_batch(BATCH, bodies, [1 - k % 2 for k in range(MAX_BATCH)])
    rows = 0
    for k, wanted in enumerate(requests):
        assert BATCH.req[k, c.R_IMP0] == rows
        if k == 7:
            assert error_text(BATCH, k)
            continue
        assert decoded(BATCH, k) == expected(wanted)
        rows += len(wanted["imp"])
    assert BATCH.counts[0] == rows
    assert BATCH.n == MAX_BATCH


def test_an_empty_batch_is_fine() -> None:
    decode_batch(BATCH, [], [])
    assert BATCH.n == 0


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_names_real_fields_by_their_numbers() -> None:
    messages = {
        "request": "BidRequest", "imp": "Imp", "imp.banner": "Banner", "imp.banner.format": "Format",
        "imp.video": "Video", "imp.video.durfloors": "DurFloors", "imp.native": "Native",
        "imp.pmp": "Pmp", "imp.pmp.deals": "Deal",
        "imp.pmp.deals.durfloors": "DurFloors", "site": "Site", "app": "App", "dooh": "Dooh", "publisher": "Publisher",
        "content": "Content", "device": "Device", "device.geo": "Geo", "user": "User", "user.ext": "User.Ext",
        "user.eids": "EID", "user.eids.uids": "EID.UID", "user.ext.eids": "EID", "user.ext.eids.uids": "EID.UID",
        "regs": "Regs", "regs.ext": "Regs.Ext", "regs.ext.dsa": "DsaRequest", "source": "Source",
        "source.ext": "Source.Ext", "source.schain": "SupplyChain", "source.ext.schain": "SupplyChain",
        "source.schain.nodes": "SupplyChainNode", "source.ext.schain.nodes": "SupplyChainNode",
        "native": "NativeRequest", "native.native": "NativeRequest", "native.assets": "NativeRequest.Asset",
        "native.assets.title": "NativeRequest.Title", "native.assets.img": "NativeRequest.Image",
        "native.assets.data": "NativeRequest.Data",
    }  # fmt: skip
    for context, (_, fields) in schema.SCHEMA.items():
        if not fields:
            continue
        path = messages[context].split(".")
        message = openrtb_pb2.DESCRIPTOR.message_types_by_name[
            "BidRequest" if path[0] not in ("BidRequest", "NativeRequest") else path.pop(0)
        ]
        for name in path:
            message = message.nested_types_by_name[name]
        for field in fields:
            if 0 < field.number < 500:
                assert message.fields_by_number[field.number].name == field.key, context
            elif field.number == 0:
                assert field.key not in message.fields_by_name, (context, field.key)
