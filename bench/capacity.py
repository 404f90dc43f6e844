"""Capacity on paper: machines and money for so many requests a day, from measured figures.

`python -m bench capacity [--requests-day 1e10] [--peak 3] …`. What is measured is read from the standard benchmark's
kept lines (the least saturation of all runs) or stands here beside the command that prints it; what is assumed, prices
first of all, is an option, and all of it is printed. Arithmetic only: no cluster of this size was run.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.page import CSS, figure
from dsp.audience.sizing import Node, size
from dsp.log.decisions import DECISION_FIELDS
from dsp.model.features import F

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "standard.jsonl"
PAGE = HERE / "out" / "capacity.html"
DAY_S, MONTH_DAYS = 86_400, 30.4

# Measured: `python -m bench ledger`, PostgreSQL, notices one by one, the ledger on one core.
LEDGER_NOTICES_PER_S = 3_472
# Headers of a request and an answer, and TCP/IP's and TLS's share on top: by counting a call's bytes.
HEADER_BYTES = {"HTTP JSON": 320, "gRPC": 60}
WIRE = 1.06


@dataclass(frozen=True)
class Assumed:
    """What nothing here can measure: change it by an option."""

    requests_day: float = 1e10
    peak: float = 3.0  # times the mean
    http: float = 0.5  # share of the requests over HTTP, the rest over gRPC
    busy: float = 0.7  # of saturation at the peak: where p99 was measured
    scale: float = 0.8  # of one core's rate that each core of a full machine gives: siblings, memory, interrupts
    cores: int = 16  # virtual cores of a bidder machine
    system_cores: int = 2  # of those, for the network and everything else
    zones: int = 3  # one may be lost at the peak
    win_rate: float = 0.1  # of the bids
    notices_per_win: float = 2.0  # win or billing, impression or click
    bid_rate: float = 0.0  # 0: as measured, whose market is made to bid on
    people: float = 5e8
    log_share: float = 0.1  # of the bids whose decision is kept
    log_days: float = 120.0
    usd_core_month: float = 30.0
    usd_store_node_month: float = 600.0
    usd_egress_gb: float = 0.02  # answers to exchanges; peering is less, list prices of clouds are up to 0.09
    usd_log_gb_month: float = 0.023


def measured(path: Path = RESULTS) -> dict[str, Any]:
    """Per front: the least median saturation of all kept runs, a core; sizes of the last. Raises OSError."""
    runs = [row for row in map(json.loads, path.read_text().splitlines()) if not row["quick"]]
    last, mix = runs[-1], runs[-1]["mix"]
    rates = {
        front: min(run["fronts"][front]["summary"]["saturation_per_s"]["median"] for run in runs)
        for front in last["fronts"]
    }
    return {
        "runs": len(runs),
        "per_core_per_s": rates,
        "request_bytes": {"HTTP JSON": mix["median JSON, bytes"], "gRPC": mix["median protobuf, bytes"]},
        "answer_bytes": {"HTTP JSON": mix["mean answer, bytes (HTTP)"], "gRPC": mix["mean answer, bytes (gRPC)"]},
        "bid_rate": mix["bid rate, JSON"],
        "known": 1.0 - mix["consent"]["none"],
        "anonymous_mb": last["fronts"]["gRPC"]["memory"]["after"]["rss_anon"] / 1e6,
    }


def plan(given: Assumed, facts: dict[str, Any]) -> dict[str, Any]:
    """Machines, traffic and US dollars a month. All rates are per second, traffic in Gbit/s."""
    mean = given.requests_day / DAY_S
    peak = mean * given.peak
    bid_rate = given.bid_rate or facts["bid_rate"]
    shares = {"HTTP JSON": given.http, "gRPC": 1.0 - given.http}
    # Cores add up by front: each front's share of the peak over what a core of it takes at the busy share.
    per_core = {front: rate * given.busy * given.scale for front, rate in facts["per_core_per_s"].items()}
    cores = sum(peak * share / per_core[front] for front, share in shares.items())
    per_machine = given.cores - given.system_cores
    without_a_zone = given.zones / (given.zones - 1) if given.zones > 1 else 1.0
    bidders = math.ceil(cores / per_machine * without_a_zone)
    bidders += -bidders % max(given.zones, 1)  # the same in each zone
    # Autoscaled, machines follow the day: on average what the mean needs, with the same reserve.
    bidders_mean = math.ceil(bidders / given.peak)
    bidders_mean += -bidders_mean % max(given.zones, 1)
    store = size(
        int(given.people), peak, Node(usd_month=given.usd_store_node_month), known_share=facts["known"], copies=2
    )
    notices = mean * bid_rate * given.win_rate * given.notices_per_win
    ledgers = math.ceil(notices * given.peak / (LEDGER_NOTICES_PER_S * given.busy))
    into = sum(s * (facts["request_bytes"][f] + HEADER_BYTES[f]) for f, s in shares.items()) * WIRE
    out = sum(s * (bid_rate * facts["answer_bytes"][f] + HEADER_BYTES[f]) for f, s in shares.items()) * WIRE
    row_bytes = F * 4 + sum(np.dtype(dtype).itemsize * max(width, 1) for dtype, width in DECISION_FIELDS.values())
    log_gb_day = given.requests_day * bid_rate * given.log_share * row_bytes / 1e9
    out_gb_month = given.requests_day * out / 1e9 * MONTH_DAYS
    usd = {
        "bidders, always for the peak": bidders * given.cores * given.usd_core_month,
        "bidders, autoscaled": bidders_mean * given.cores * given.usd_core_month,
        "store": store.usd_month,
        "ledgers and PostgreSQL": ledgers * (4 + 8) * given.usd_core_month,  # 4 cores of ledger, 2 x 4 of database
        "answers to exchanges": out_gb_month * given.usd_egress_gb,
        "decision log": log_gb_day * given.log_days * given.usd_log_gb_month,
    }
    total = sum(cost for name, cost in usd.items() if name != "bidders, always for the peak")
    return {
        "mean_per_s": mean,
        "peak_per_s": peak,
        "cores_at_peak": cores,
        "bidders": bidders,
        "bidders_mean": bidders_mean,
        "store_nodes": store.nodes,
        "notices_per_s_mean": notices,
        "ledgers": ledgers,
        "in_gbit_s_peak": peak * into * 8 / 1e9,
        "out_gbit_s_peak": peak * out * 8 / 1e9,
        "in_gbit_s_per_bidder": peak * into * 8 / 1e9 / bidders,
        "log_gb_day": log_gb_day,
        "usd_month": usd,
        "usd_month_total": total,
        "usd_per_million": total / (given.requests_day * MONTH_DAYS / 1e6),
    }


def page(given: Assumed, facts: dict[str, Any], result: dict[str, Any]) -> str:
    """The figures, and a plot of machines against the day's requests."""
    days = np.geomspace(given.requests_day / 30, given.requests_day * 3, 25)
    points = [plan(Assumed(**{**asdict(given), "requests_day": day}), facts) for day in days]

    def draw(axes: Any) -> None:
        for name, label in (("bidders", "bidders, at the peak"), ("store_nodes", "store"), ("ledgers", "ledgers")):
            axes.plot(days / 1e9, [point[name] for point in points], label=label)
        axes.set(xscale="log", yscale="log", xlabel="billion requests a day", ylabel="machines")
        axes.legend()

    body = json.dumps({"measured": facts, "assumed": asdict(given), "result": result}, indent=2)
    head = f"<!doctype html><meta charset=utf-8><title>Capacity</title><style>{CSS}</style><h1>Capacity</h1>"
    return f"{head}{figure(draw)}<pre>{body}</pre>"


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench capacity", description=__doc__)
    for name, value in asdict(Assumed()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = vars(parser.parse_args(argv))
    as_json = options.pop("json")
    given, facts = Assumed(**options), measured()
    result = plan(given, facts)
    if as_json:
        print(json.dumps({"measured": facts, "assumed": asdict(given), "result": result}))
        return 0
    for title, rows in (("measured", facts), ("assumed", asdict(given)), ("result", result)):
        print(f"\n{title}")
        for name, value in rows.items():
            if isinstance(value, dict):
                print(f"  {name.replace('_', ' ')}")
                for key, number in value.items():
                    print(f"    {key:32} {_number(number)}")
            else:
                print(f"  {name.replace('_', ' '):34} {_number(value)}")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(given, facts, result))
    print(f"\nplot: {PAGE.relative_to(HERE.parent)}")
    return 0


def _number(value: float) -> str:
    return f"{value:16,.4g}" if abs(value) < 100 else f"{value:16,.0f}"
