"""Input that must not hurt: each bad body gets a clear 4xx, its neighbours get their answers, memory stays flat.

`python -m bench badinput`. Cases are made from one good request; every wire gets those that its format can express.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.clients import NO_ANSWER, Client, Reply
from bench.everything import WIRES, Bidder, everything_bidder
from bench.load import METHOD, GrpcLoad, HttpLoad, Request
from bench.machine import memory_bytes
from bench.procs import OUT
from dsp.openrtb.convert import json_to_pb

Json = dict[str, Any]
REFUSED = (400, 413)
ANSWERED = (200, 204)
FIVE_MB = 5 << 20
FLAT_BYTES = 24 << 20  # growth of anonymous memory that still counts as flat: allocators keep what they once needed


@dataclass(frozen=True)
class BadCase:
    """A body and the statuses that are right for it."""

    name: str
    body: bytes
    expect: tuple[int, ...] = REFUSED
    headers: tuple[tuple[str, str], ...] = ()


def json_cases(good: Json, seed: int = 1) -> list[BadCase]:
    """Bad JSON bodies."""
    rng = random.Random(seed)
    text = json.dumps(good).encode()
    imp = good["imp"][0]

    def changed(**members: Any) -> bytes:
        return json.dumps({**good, **members}).encode()

    def with_imp(**members: Any) -> bytes:
        return changed(imp=[{**imp, **members}])

    def spliced(member: bytes) -> bytes:
        return text[:-1] + b"," + member + b"}"

    cases = [BadCase(f"truncated at {at}", text[:at]) for at in sorted(rng.sample(range(1, len(text) - 1), 40))]
    cases += [BadCase(f"garbage {n}", rng.randbytes(n)) for n in (1, 7, 100, 2000, 60_000)]
    cases += [
        BadCase("empty", b""),
        BadCase("null", b"null"),
        BadCase("array", b"[]"),
        BadCase("string", b'"x"'),
        BadCase("two documents", text + text),
        BadCase("5 MB of one string", spliced(b'"x":"' + b"a" * FIVE_MB + b'"')),
        BadCase("5 MB of spaces", text + b" " * FIVE_MB),
        BadCase("100,000 open brackets", b"[" * 100_000),
        BadCase("100,000 open objects", b'{"a":' * 100_000),
        BadCase("nested in ext", spliced(b'"ext":' + b"[" * 50_000 + b"]" * 50_000)),
        BadCase("nested in an imp's ext", with_imp(ext=nested(400))),
        BadCase("1,000 imps", changed(imp=[{**imp, "id": str(i)} for i in range(1000)]), ANSWERED),
        BadCase("1,000 imps of one id", changed(imp=[imp] * 1000)),
        BadCase("two imps of one id", changed(imp=[imp, imp])),
        BadCase("NaN floor", with_imp(bidfloor=float("nan"))),
        BadCase("infinite floor", with_imp(bidfloor=float("inf"))),
        BadCase("floor 1e400", json.dumps({**good, "imp": [{**imp, "bidfloor": 7}]}).encode().replace(
            b'"bidfloor": 7', b'"bidfloor": 1e400')),
        BadCase("floor 1e300", with_imp(bidfloor=1e300)),
        BadCase("negative floor", with_imp(bidfloor=-1.5), (*REFUSED, *ANSWERED)),
        BadCase("negative tmax", changed(tmax=-5), (*REFUSED, *ANSWERED)),
        BadCase("tmax of 400 digits", spliced(b'"tmax":' + b"9" * 400), (*REFUSED, *ANSWERED)),
        BadCase("tmax 1e999", spliced(b'"tmax":1e999'), (*REFUSED, *ANSWERED)),
        BadCase("id a number", changed(id=5)),
        BadCase("id null", changed(id=None)),
        BadCase("id empty", changed(id="")),
        BadCase("no id", json.dumps({k: v for k, v in good.items() if k != "id"}).encode()),
        BadCase("no imp", json.dumps({k: v for k, v in good.items() if k != "imp"}).encode()),
        BadCase("imp empty", changed(imp=[])),
        BadCase("imp an object", changed(imp=imp)),
        BadCase("imp of strings", changed(imp=["1"])),
        BadCase("imp id missing", changed(imp=[{k: v for k, v in imp.items() if k != "id"}])),
        BadCase("imp id an object", with_imp(id={"a": 1})),
        BadCase("floor a word", with_imp(bidfloor="much")),
        BadCase("banner a number", with_imp(banner=7)),
        BadCase("device an array", changed(device=[1])),
        BadCase("user a string", changed(user="me")),
        BadCase("invalid UTF-8 in the id", text.replace(json.dumps(good["id"]).encode(), b'"\xff\xfe"')),
        BadCase("invalid UTF-8 further on", spliced(b'"x":"\xc3\x28"')),
        BadCase("lone surrogate bytes", spliced(b'"x":"\xed\xa0\x80"')),
        BadCase("control character", spliced(b'"x":"\x01"'), (*REFUSED, *ANSWERED)),
        BadCase("zip bomb", gzip.compress(b" " * (64 << 20), 1), headers=(("content-encoding", "gzip"),)),
        BadCase("cut gzip", gzip.compress(text)[:-20], headers=(("content-encoding", "gzip"),)),
        BadCase("not gzip", text, headers=(("content-encoding", "gzip"),)),
        BadCase("garbage gzip", b"\x1f\x8b" + rng.randbytes(500), headers=(("content-encoding", "gzip"),)),
    ]  # fmt: skip
    return cases


def nested(depth: int) -> Any:
    """Arrays in arrays."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def protobuf_cases(good: Json, seed: int = 1) -> list[BadCase]:
    """Bad protobuf bodies. A cut that falls between fields leaves a shorter, legal message: it may be answered."""
    rng = random.Random(seed)
    message = json_to_pb(good)
    whole = message.SerializeToString()
    either = (*REFUSED, *ANSWERED)

    def with_imp(change: Callable[[Any], None]) -> bytes:
        copy = json_to_pb(good)
        change(copy.imp[0])
        return bytes(copy.SerializeToString())

    many, twice = json_to_pb(good), json_to_pb(good)
    for number in range(1, 1000):
        many.imp.add().CopyFrom(message.imp[0])
        many.imp[number].id = f"more-{number}"
    twice.imp.add().CopyFrom(message.imp[0])
    cases = [BadCase(f"truncated at {at}", whole[:at], either) for at in sorted(rng.sample(range(1, len(whole)), 40))]
    cases += [BadCase(f"garbage {n}", b"\xff" * 3 + rng.randbytes(n)) for n in (1, 7, 100, 2000, 60_000)]
    cases += [
        BadCase("empty", b""),
        BadCase("cut inside the first field", whole[:2]),
        BadCase("length beyond the end", b"\x0a\xff\xff\xff\xff\x07abc"),
        BadCase("length beyond 2^63", b"\x0a" + b"\xff" * 9 + b"\x7f"),
        BadCase("endless varint", b"\x28" + b"\xff" * 50),
        BadCase("field number 0", b"\x02\x01a" + whole),
        BadCase("wire type 7", whole + b"\x0f"),
        BadCase("end of a group that never began", whole + b"\x0c"),
        BadCase("100,000 groups", b"\xa3\x06" * 100_000),
        BadCase("nested in unknown fields", whole + nested_message(300), either),
        BadCase("5 MB", whole + b"\xfa\x06" + varint(FIVE_MB) + b"a" * FIVE_MB),
        BadCase("1,000 imps", many.SerializeToString(), ANSWERED),
        BadCase("two imps of one id", twice.SerializeToString()),
        BadCase("NaN floor", with_imp(lambda imp: setattr(imp, "bidfloor", float("nan")))),
        BadCase("infinite floor", with_imp(lambda imp: setattr(imp, "bidfloor", float("inf")))),
        BadCase("floor 1e300", with_imp(lambda imp: setattr(imp, "bidfloor", 1e300))),
        BadCase("negative floor", with_imp(lambda imp: setattr(imp, "bidfloor", -1.5)), either),
        BadCase("id as a varint", b"\x08\x05" + whole, either),
        BadCase("imp as a varint", b"\x10\x05", REFUSED),
        BadCase("imp id missing", with_imp(lambda imp: imp.ClearField("id"))),
        BadCase("invalid UTF-8 in the id", whole + b"\x0a\x02\xff\xfe"),
    ]
    return cases


def varint(value: int) -> bytes:
    """Base 128, little-endian."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def nested_message(depth: int) -> bytes:
    """Field 15 within field 15 within …"""
    out = b""
    for _ in range(depth):
        out = b"\x7a" + varint(len(out)) + out
    return out


def run_cases(client: Client, cases: Iterable[BadCase], good: bytes) -> list[str]:
    """Send each case and after it a good request; what went wrong, in words."""
    wrong = []
    for case in cases:
        reply = client.send(case.body, dict(case.headers))
        wrong += [f"{case.name}: {fault}" for fault in faults(case, reply)]
        after = client.send(good)
        if after.status not in ANSWERED:
            wrong.append(f"{case.name}: the good request after it got {after.status} {after.body[:100]!r}")
    return wrong


def faults(case: BadCase, reply: Reply) -> list[str]:
    """What is wrong with the answer to a case."""
    # OpenRTB wants a 400 without content, so over HTTP what is wrong is told in a header.
    said = reply.headers.get("x-dsp-error") or reply.body[:160].decode("utf-8", "replace")
    if reply.status == NO_ANSWER:
        return [f"no answer ({said})"]
    if reply.status not in case.expect:
        return [f"{reply.status} instead of {' or '.join(map(str, case.expect))} ({said})"]
    if reply.status in REFUSED and len(said) < 5:
        return [f"{reply.status} without a message"]
    return []


def mixed_batches(load: GrpcLoad | HttpLoad, good_share: float, seconds: float) -> tuple[list[str], int]:
    """Good and bad requests together, many in flight: every good one is answered. What went wrong, how many sent."""
    window = load.closed_loop(48, seconds)
    good = sum(window.statuses.get(status, 0) for status in (0, *ANSWERED))
    wrong = [
        f"{n} requests got status {status}"
        for status, n in window.statuses.items()
        if status not in (0, 3, 8, *ANSWERED, *REFUSED)
    ]
    if abs(good - good_share * window.sent) > 1 + 0.02 * window.sent:
        wrong.append(f"{good} of {window.sent} answered, {good_share:.1%} of them are good")
    return wrong, window.sent


def mixed_requests(
    cases: Sequence[BadCase], good: bytes, path: str, headers: tuple[tuple[str, str], ...]
) -> list[Request]:
    """Every small bad case with a good request beside it: half of the traffic is bad."""
    out = []
    for case in cases:
        if len(case.body) < 60_000 and not case.headers and not set(case.expect) & set(ANSWERED):
            out += [Request(case.body, path, headers), Request(good, path, headers)]
    return out


def growth_bytes(pid: int, work: Callable[[], None]) -> int:
    """By how much a process's anonymous memory grows during ``work``."""
    before = memory_bytes(pid)["rss_anon"]
    work()
    return memory_bytes(pid)["rss_anon"] - before


def good_request() -> Json:
    """A plain, legal request that a bidder which wants everything bids on."""
    return {
        "id": "good-1",
        "imp": [{"id": "1", "banner": {"w": 300, "h": 250, "mimes": ["text/html"]}, "bidfloor": 0.1, "secure": 1}],
        "site": {"id": "s1", "domain": "news.example", "page": "https://news.example/a", "publisher": {"id": "p1"}},
        "device": {
            "ua": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
            "Safari/537.36",
            "ip": "203.0.113.8", "language": "en", "devicetype": 2, "geo": {"country": "USA", "region": "CA"},
        },
        "user": {"id": "u1", "buyeruid": "b1"},
        "at": 1, "tmax": 1000, "cur": ["USD"],
    }  # fmt: skip


def flood(bidder: Bidder, wire: str, cases: Sequence[BadCase], good: bytes, seconds: float) -> list[str]:
    """Good and bad together, many in flight; what went wrong."""
    path = METHOD if wire == "grpc" else bidder.path
    requests = mixed_requests(cases, good, path, (("authorization", f"Bearer {bidder.token}"),))
    address = bidder.server(wire).address
    load: GrpcLoad | HttpLoad
    if wire == "grpc":
        load = GrpcLoad(address, requests, spin=False)
    else:
        kind = "application/json" if wire == "http-json" else "application/x-protobuf"
        load = HttpLoad(address, requests, content_type=kind, spin=False)
    wrong, _ = mixed_batches(load, 0.5, seconds)
    load.close()
    return wrong


def run_badinput(bidder: Bidder, wire: str, seconds: float) -> tuple[list[str], Json]:
    """Every check of the module over one wire: what went wrong, and figures."""
    good = good_request()
    if wire == "http-json":
        cases, body = json_cases(good), json.dumps(good).encode()
    else:
        cases, body = protobuf_cases(good), json_to_pb(good).SerializeToString()
    client = bidder.client(wire)
    wrong = run_cases(client, cases, body)
    wrong += flood(bidder, wire, cases, body, seconds)  # what the first round makes the process keep is its working set
    pid = bidder.server(wire).pid

    def again() -> None:
        wrong.extend(flood(bidder, wire, cases, body, seconds))
        wrong.extend(run_cases(client, cases, body))

    growth = growth_bytes(pid, again)
    client.close()
    if growth > FLAT_BYTES:
        wrong.append(f"anonymous memory grew by {growth / 2**20:.1f} MB")
    return wrong, {"wire": wire, "cases": len(cases), "growth_mb": round(growth / 2**20, 2), "wrong": len(wrong)}


def main(argv: list[str] | None = None) -> int:
    """Send bad input to a bidder started for it; 1 where something went wrong."""
    parser = argparse.ArgumentParser(prog="bench badinput", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each mixed flood")
    parser.add_argument("--grpc-front", choices=("grpc", "grpcio"), default="grpc")
    args = parser.parse_args(argv)
    good = True
    with everything_bidder(OUT / "everything", grpc_front=args.grpc_front) as bidder:
        for wire in WIRES:
            wrong, row = run_badinput(bidder, wire, args.seconds)
            good &= not wrong
            print(json.dumps(row), flush=True)
            for line in wrong:
                print("  ", line, file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
