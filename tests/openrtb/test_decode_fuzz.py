"""Both walkers against `json.loads` and the official protobuf library: the same answers, and never a crash."""

import json
import random
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openrtb_reference import DuplicateKeyError, RefusedError, decoded, expected, load

from dsp.openrtb import columns as c
from dsp.openrtb import schema
from dsp.openrtb.columns import Batch
from dsp.openrtb.convert import json_to_pb, pb_to_json
from dsp.openrtb.decode import decode_batch, error_text
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

BATCH = Batch()
FAST = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

# --- requests that make sense, from the schema's own names ------------------------------------------------------------

TEXTS = (
    "a", "USD", "EUR", "IAB1-2", "www.Example.com", "https://u@www.foo.org:81/x?y#z", "//foo.de/", "en-US", "zh_Hant",
    "US", "USA", "US-CA", "usa", "M", "", "x" * 70, "com.app.x", "1.2", "1", "5", "-7", "0.25", "{}", '{"assets":[]}',
    'quote" back\\slash \n tab\t', "\u00e9", "\u65e5\u672c", "\U0001f600", "\x7f", "a" * 32, "b" * 31,
)  # fmt: skip
INTS = (*range(-3, 41), 300, 250, 65535, 65536, 2**31 - 1, -(2**31))
PRICES = (0.1 + 0.2, 1e-9, 5e-324, 1e12, -1.5, 3, 0, 0.29, 1.005, 20.0)


def random_text(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0xD800)))) for _ in range(rng.randrange(40)))


def random_value(rng: random.Random, field: schema.Field) -> Any:
    """A value of the kind the field wants."""
    kind = field.kind
    if kind in (schema.OBJECT, schema.EXT):
        return random_object(rng, field.context)
    if kind == schema.OBJECTS:
        return [random_object(rng, field.context) for _ in range(rng.randrange(4))]
    if kind in (schema.HASHES, schema.HOSTS, schema.LANGS):
        return [random_text(rng) for _ in range(rng.randrange(5))]
    if kind in (schema.MASK, schema.INTS):
        return [rng.choice(INTS) for _ in range(rng.randrange(7))]
    if kind == schema.INT:
        return rng.choice(INTS)
    if kind == schema.FLAG:
        return rng.choice((0, 1, True, False))
    if kind == schema.MONEY:
        return rng.choice((rng.choice(PRICES), rng.random() * 50, round(rng.random() * 9, rng.randrange(7))))
    if kind == schema.MICRO:
        return rng.uniform(-400, 400)
    if kind == schema.NATIVE:
        inner = random_object(rng, "native")
        return rng.choice((json.dumps(inner), json.dumps(inner, indent=1), inner, random_text(rng)))
    return random_text(rng)


def random_object(rng: random.Random, context: str) -> dict[str, Any]:
    """An object with some of the members its context knows, in any order, and one it does not."""
    fields = [f for f in schema.SCHEMA[context][1] if rng.random() < 0.5]
    rng.shuffle(fields)
    out: dict[str, Any] = {field.key: random_value(rng, field) for field in fields}
    if rng.random() < 0.3:
        out["unheard of"] = {"x": [1, {"id": [None, True, -1.5e3]}], "id": "no"}
    return out


def random_request(rng: random.Random) -> dict[str, Any]:
    """A request that has what every request must have."""
    imps = [{**random_object(rng, "imp"), "id": str(k)} for k in range(rng.randrange(1, 4))]
    return {**random_object(rng, "request"), "id": "r", "imp": imps}


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=9)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=8,
)


def check_json(body: bytes, batch: Batch = BATCH) -> None:
    """The decoder and the reference say the same of one JSON body."""
    decode_batch(batch, [body], [c.FMT_JSON])
    status = int(batch.req[0, c.R_STATUS])
    try:
        wanted = expected(load(body))
    except DuplicateKeyError:
        return
    except RefusedError:
        assert status != c.OK
        assert error_text(batch, 0)
        assert batch.req[0, c.R_IMPN] == 0
        assert batch.counts[0] == 0
        assert batch.counts[1] == 0
        return
    assert error_text(batch, 0) == ""
    assert decoded(batch, 0) == wanted


def check_protobuf(body: bytes, batch: Batch = BATCH) -> None:
    """The decoder and the official library say the same of one message; it may refuse what it doesn't look into."""
    decode_batch(batch, [body], [c.FMT_PROTOBUF])
    status = int(batch.req[0, c.R_STATUS])
    try:
        message = openrtb_pb2.BidRequest.FromString(body)
    except DecodeError:
        return
    try:
        wanted = expected(pb_to_json(message))
    except RefusedError:
        assert status not in (c.OK, c.E_SYNTAX, c.E_TRUNCATED)
        return
    assert error_text(batch, 0) == ""
    assert decoded(batch, 0) == wanted


def test_requests_decode_to_what_they_say() -> None:
    seed = 3
    rng = random.Random(seed)
    for k in range(250):
        request = random_request(rng)
        text = json.dumps(request, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
        try:
            check_json(text.encode())
            check_protobuf(json_to_pb(request).SerializeToString())
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, round {k}: {text}: {error}") from error


# --- values of the wrong type -----------------------------------------------------------------------------------------


@FAST
@given(st.sampled_from([row for row in schema.ROWS if row[1].key]), JUNK, st.booleans())
def test_any_value_anywhere_is_taken_or_refused_as_the_reference_does(
    row: tuple[str, schema.Field], value: Any, listed: bool
) -> None:
    request: dict[str, Any] = {"id": "r", "imp": [{"id": "1"}]}
    place = request
    path = PATHS[row[0]]
    for key in path:
        if isinstance(place.get(key), list):
            place = place[key][0]
        elif key in ("format", "durfloors", "deals", "eids", "uids", "nodes", "assets"):
            place[key] = [{}]
            place = place[key][0]
        else:
            place = place.setdefault(key, {})
    place[row[1].key] = [value, value] if listed else value
    check_json(json.dumps(request).encode())


def paths() -> dict[str, tuple[str, ...]]:
    """A way from the request to each context."""
    found: dict[str, tuple[str, ...]] = {"request": ()}
    found["native"] = ("imp", "native", "request")
    waiting = ["request", "native"]
    while waiting:
        name = waiting.pop()
        for field in schema.SCHEMA[name][1]:
            if field.context and field.context not in found:
                found[field.context] = (*found[name], field.key)
                waiting.append(field.context)
    return found


PATHS = paths()


# --- broken bodies ----------------------------------------------------------------------------------------------------


def seeds() -> list[dict[str, Any]]:
    banner = {"w": 300, "h": 250, "format": [{"w": 1, "h": 2}]}
    native = '{"native":{"ver":"1.2","assets":[{"id":1,"title":{"len":9}}]}}'
    deals = [{"id": "d", "bidfloor": 1e-3, "wseat": ["s"]}]
    return [
        {
            "id": "r1",
            "imp": [{"id": "1", "banner": banner, "bidfloor": 0.125}],
            "site": {"domain": "a.com", "cat": ["IAB1"], "publisher": {"id": "p"}},
            "device": {"ua": "x\u00e9\n", "geo": {"country": "DE", "lat": 1.5}},
            "regs": {"gdpr": 1, "ext": {"us_privacy": "1YN-"}},
            "tmax": 120,
            "bcat": ["a", "b"],
        },
        {
            "id": "r2",
            "imp": [
                {"id": "1", "native": {"request": native}},
                {"id": "2", "video": {"mimes": ["v"], "protocols": [2, 3], "skip": 0}, "pmp": {"deals": deals}},
            ],
            "app": {"bundle": "b", "ext": {"x": [1, {"y": [None, True]}]}},
            "user": {"eids": [{"source": "s", "uids": [{"id": "u"}]}], "ext": {"consent": "c"}},
            "source": {"schain": {"complete": 1, "nodes": [{}, {}]}},
        },
    ]


def mutated(rng: random.Random, body: bytes, alphabet: bytes) -> bytes:
    out = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(out) + 1)
        what = rng.randrange(5)
        if what == 0:
            del out[at : at + rng.choice((1, 1, 2, 7, 40))]
        elif what == 1:
            out[at:at] = bytes(rng.choice(alphabet) for _ in range(rng.choice((1, 1, 2, 5))))
        elif what == 2 and at < len(out):
            out[at] = rng.choice(alphabet)
        elif what == 3:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.choice((1, 4, 30, 200))]
        else:
            del out[at:]
    return bytes(out)


JSON_ALPHABET = b'{}[]",:\\/0123456789.eE+-truefalsn \n\tud8"id\x00\x1f\x7f\xc3\xa9\xff'


def mutations(check: Callable[[bytes], None], bodies: list[bytes], alphabet: bytes, rounds: int) -> None:
    seed = 20
    rng = random.Random(seed)
    for k in range(rounds):
        body = mutated(rng, rng.choice(bodies), alphabet)
        try:
            check(body)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, round {k}: {body!r}: {error}") from error


def test_broken_json_is_refused_exactly_where_json_loads_does() -> None:
    bodies = [json.dumps(s, ensure_ascii=False).encode() for s in seeds()]
    bodies += [json.dumps(s, indent=1).encode() for s in seeds()]
    mutations(check_json, bodies, JSON_ALPHABET, 4000)


def test_broken_protobuf_is_never_read_otherwise_than_officially() -> None:
    bodies = [json_to_pb(s).SerializeToString() for s in seeds()]
    mutations(check_protobuf, bodies, bytes(range(256)), 4000)


@FAST
@given(st.binary(max_size=200))
def test_garbage_never_crashes(body: bytes) -> None:
    check_json(body)
    check_protobuf(body)


def test_scalars_and_numbers_as_json_writes_them() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        digits = "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 3, 17, 18, 19, 20, 25))))
        number = rng.choice(("", "", "-")) + digits
        number += rng.choice(("", "", ".", "." + digits[:6], ".5", ".000000", "." + digits))
        number += rng.choice(("", "", "e3", "E-4", "e+2", "e", "e400", "e-400", "e-7", "e-12"))
        for place in ('"bidfloor":', '"exp":', '"secure":', '"tagid":', '"unknown":'):
            check_json(f'{{"id":"r","imp":[{{"id":"1",{place}{number}}}]}}'.encode())


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_bad_bodies_leave_their_neighbours_and_everything_else_alone() -> None:
    rng = random.Random(7)
    batch = Batch()
    wholes = {}
    for name in ("req", "imp", "deal", "work"):
        shape = getattr(batch, name).shape
        size, margin = int(np.prod(shape)), 4096
        whole = np.full(size + 2 * margin, -77, np.int64)
        whole[margin : margin + size] = 0
        setattr(batch, name, whole[margin : margin + size].reshape(shape))
        wholes[name] = (whole[:margin], whole[margin + size :])
    good = seeds()
    bodies = {
        c.FMT_JSON: [json.dumps(s).encode() for s in good],
        c.FMT_PROTOBUF: [json_to_pb(s).SerializeToString() for s in good],
    }
    for _ in range(200):
        formats = [rng.randrange(2) for _ in range(16)]
        choice = [rng.randrange(2) for _ in range(16)]
        sound = [rng.random() < 0.5 for _ in range(16)]
        sent = [
            bodies[f][k] if ok else mutated(rng, bodies[f][k], bytes(range(256)))
            for f, k, ok in zip(formats, choice, sound, strict=True)
        ]
        decode_batch(batch, sent, formats)
        for i, ok in enumerate(sound):
            if ok:
                wire = good[choice[i]] if formats[i] == c.FMT_JSON else pb_to_json(json_to_pb(good[choice[i]]))
                assert decoded(batch, i) == expected(wire)
            elif batch.req[i, c.R_STATUS] != c.OK:
                assert batch.req[i, c.R_IMPN] == 0
        for before, after in wholes.values():
            assert (before == -77).all()
            assert (after == -77).all()


@pytest.mark.parametrize("fmt", [c.FMT_JSON, c.FMT_PROTOBUF])
def test_every_prefix_of_a_request_is_refused(fmt: int) -> None:
    for seed in seeds():
        body = json.dumps(seed).encode() if fmt == c.FMT_JSON else json_to_pb(seed).SerializeToString()
        for cut in range(len(body)):
            if fmt == c.FMT_JSON:
                decode_batch(BATCH, [body[:cut]], [fmt])
                assert BATCH.req[0, c.R_STATUS] in (c.E_TRUNCATED, c.E_SYNTAX)
            else:
                check_protobuf(body[:cut])


def test_random_text_in_every_string_field() -> None:
    rng = random.Random(11)
    alphabet = string.printable + '\\"\u0000\u0007\u00e9\u4e2d\U0001f680'
    for _ in range(300):
        value = "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 80)))
        request = seeds()[0]
        request["id"] = request["imp"][0]["id"] = request["device"]["ua"] = value
        request["site"]["domain"], request["bcat"] = value, [value, value[:3]]
        request["imp"][0]["pmp"] = {"deals": [{"id": value}]}
        check_json(json.dumps(request, ensure_ascii=rng.random() < 0.5).encode())
        check_protobuf(json_to_pb(request).SerializeToString())
