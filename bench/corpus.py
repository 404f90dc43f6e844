"""Real requests, all three wires: every request of the corpus goes to a running bidder, every answer to the checker.

`python -m bench corpus`. The corpus (`../shared/openrtb`) holds what exchanges and their software really send, much of
it odd. What must hold: an answer to everything and never a 5xx; `ok` requests get 200 or 204; the checker finds no
error (E) in any answer; with a catalog that wants everything, at least 80 % of the `ok` requests with a banner, native
or video imp get a bid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import Progress

from bench.clients import NO_ANSWER, Client, Reply
from bench.everything import WIRES, everything_bidder
from bench.material import REQUESTS, Case, Check, Json, load_cases, load_check
from bench.procs import OUT
from dsp.openrtb.convert import json_to_pb, pb_to_json
from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2

BID_BAR = 0.8
MEDIA = ("banner", "native", "video")


@dataclass
class Outcome:
    """What one wire made of the corpus."""

    wire: str
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)  # "ok 200", "soft 400", ...
    findings: Counter[str] = field(default_factory=Counter)  # "E floor", "W no_crid", ...
    biddable: int = 0  # ok requests with a banner, native or video imp
    bids: int = 0  # of those, with a bid
    failures: list[str] = field(default_factory=list)  # what must not be, with the request's name
    no_bid: list[str] = field(default_factory=list)  # biddable ones without a bid

    @property
    def bid_rate(self) -> float:
        """Bids per biddable request."""
        return self.bids / max(1, self.biddable)

    def row(self) -> dict[str, Any]:
        """For a JSON line."""
        return {
            "wire": self.wire, "sent": self.sent, "statuses": dict(sorted(self.statuses.items())),
            "findings": dict(sorted(self.findings.items())), "biddable": self.biddable, "bids": self.bids,
            "bid_rate": round(self.bid_rate, 4), "failures": len(self.failures),
        }  # fmt: skip


def converter(usd: dict[str, float]) -> Callable[[float, str, str], float | None]:
    """Currency conversion as the checker wants it, from USD per unit."""

    def fx(amount: float, source: str, target: str) -> float | None:
        if source not in usd or target not in usd:
            return None
        return amount * usd[source] / usd[target]

    return fx


def exchange_json(case: Case, client: Client) -> Iterator[tuple[Json | None, Reply]]:
    """The request as it is, over HTTP JSON: what was asked, and the answer."""
    yield case.request, client.send(case.text.encode("utf-8", "surrogatepass"))


def exchange_pb(case: Case, client: Client) -> Iterator[tuple[Json | None, Reply]]:
    """The request as protobuf, and the answer turned into what JSON would have said; nothing where it is no object."""
    if case.request is None:
        return
    message = json_to_pb(case.request)
    reply = client.send(message.SerializeToString())
    asked = pb_to_json(message)
    if reply.status == 200:
        response = openrtb_pb2.BidResponse()
        response.ParseFromString(reply.body)
        wrong = reply.headers.get("content-type", "application/x-protobuf") != "application/x-protobuf"
        headers = {"x-openrtb-version": "2.6", **reply.headers}
        headers["content-type"] = "not protobuf" if wrong else "application/json"
        reply = Reply(200, json.dumps(pb_to_json(response)).encode(), headers)
    yield asked, reply


def run_wire(
    wire: str,
    client: Client,
    cases: Sequence[Case],
    check: Check,
    fx: Callable[[float, str, str], float | None],
    progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Send every case and judge every answer. ``wire``: "http-json", "http-protobuf" or "grpc"."""
    outcome = Outcome(wire)
    exchange = exchange_json if wire == "http-json" else exchange_pb
    for case in cases:
        for asked, reply in exchange(case, client):
            judge(outcome, case, asked, reply, check, fx)
        progress()
    return outcome


def judge(
    outcome: Outcome,
    case: Case,
    asked: Json | None,
    reply: Reply,
    check: Check,
    fx: Callable[[float, str, str], float | None],
) -> None:
    """Count one answer."""
    outcome.sent += 1
    outcome.statuses[f"{case.kind} {reply.status}"] += 1
    if reply.status == NO_ANSWER or reply.status >= 500:
        outcome.failures.append(f"{case.name}: {reply.status} {reply.body[:120]!r}")
        return
    if case.kind == "ok" and reply.status not in (200, 204):
        outcome.failures.append(f"{case.name}: ok, but {reply.status} {reply.body[:120]!r}")
    # The checker takes None for "malformed": of an `invalid` request that we refused, that is what it was.
    judged = None if case.kind == "invalid" and reply.status in (400, 413) else asked
    body = reply.body if reply.headers or reply.status < 400 else b""  # gRPC's error text is no content
    for severity, code, detail in check(judged, reply.status, reply.headers, body, fx):
        outcome.findings[f"{severity} {code}"] += 1
        if severity == "E":
            outcome.failures.append(f"{case.name} ({case.kind}): E {code} {detail}")
    if case.kind == "ok" and asked is not None and any(medium in imp for imp in asked["imp"] for medium in MEDIA):
        outcome.biddable += 1
        if reply.status == 200 and json.loads(reply.body).get("seatbid"):
            outcome.bids += 1
        else:
            outcome.no_bid.append(case.name)


def main(argv: list[str] | None = None) -> int:
    """Send the corpus to a bidder started for it; 1 where something must not be so."""
    parser = argparse.ArgumentParser(prog="bench corpus", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    parser.add_argument("--show", type=int, default=10, help="how many failures and missing bids to name")
    parser.add_argument("--grpc-front", choices=("grpc", "grpcio"), default="grpc")
    args = parser.parse_args(argv)
    if not REQUESTS.exists():
        print(f"{REQUESTS} is missing: nothing to send", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    cases, check = load_cases(), load_check()
    good = True
    with everything_bidder(OUT / "everything", grpc_front=args.grpc_front) as bidder, Progress(console=console) as bar:
        for wire in WIRES:
            task = bar.add_task(wire, total=len(cases))
            client = bidder.client(wire)
            outcome = run_wire(wire, client, cases, check, converter(bidder.usd), lambda task=task: bar.advance(task))  # type: ignore[misc]
            client.close()
            good &= not outcome.failures and outcome.bid_rate >= BID_BAR
            print(json.dumps(outcome.row()), flush=True)
            if not args.json:
                for line in outcome.failures[: args.show]:
                    console.print("failure:", line, markup=False)
                console.print(f"{len(outcome.no_bid)} without a bid:", *outcome.no_bid[: args.show], markup=False)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
