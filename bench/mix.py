"""What the request mix is like, measured by the engine itself, and the answers it gives (for the echo to repeat)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from bench.world import NOON_S, World
from dsp.base.metrics import CONSENT, PROFILES, Metrics
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.current import current_path
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

BATCH = 32


@dataclass(frozen=True)
class Mix:
    """``facts`` for the report; ``wrong``: requirements it misses; recorded answers by front."""

    facts: dict[str, Any]
    wrong: list[str]
    answers: dict[str, list[bytes]]


def open_engine(world: World, metrics: Metrics, *, log_decisions: bool = False, slices: Slices | None = None) -> Engine:
    """The world's engine in this process, with a clock that starts at noon; without ``slices`` budgets never end."""
    path = current_path(world.config)
    assert path is not None
    snapshot = Snapshot.load(path)
    bidder = replace(world.config.bidder, log_decisions=log_decisions)
    return Engine.open(
        replace(world.config, bidder=bidder),
        snapshot=snapshot,
        slices=Slices.fixed(snapshot.li_i[:, 0]) if slices is None else slices,
        metrics=metrics,
        clock=lambda: NOON_S * 1_000_000_000,
        worker=f"bench-{os.getpid()}",
    )


def examine(world: World, progress: Callable[[int], None] = lambda done: None) -> Mix:
    """Let the engine decide every request once in each format. ``progress`` is told how many are done."""
    metrics = Metrics.memory("bidder")
    engine = open_engine(world, metrics)
    scored: list[int] = []
    run = engine.scorer.run

    def counting(n: int) -> Any:
        scored.append(n)
        return run(n)

    engine.scorer.run = counting  # type: ignore[method-assign]
    answers: dict[str, list[bytes]] = {"http": [], "grpc": []}
    bids = {"http": 0, "grpc": 0}
    for front, fmt in (("http", FMT_JSON), ("grpc", FMT_PROTOBUF)):
        for start in range(0, len(world.items), BATCH):
            part = world.items[start : start + BATCH]
            bodies = [item.pb if fmt == FMT_PROTOBUF else item.json for item in part]
            exchanges = [engine.exchange_of(item.exchange) for item in part]
            said = engine.decide(bodies, [fmt] * len(part), exchanges, nbr_bodies=front == "grpc")
            answers[front] += [payload for _, payload in said]
            bids[front] += sum(kind == BID for kind, _ in said)
            progress(len(part))
    profiles = dict(zip(PROFILES, metrics.counter("dsp_profiles_total").tolist(), strict=True))
    consent = dict(zip(CONSENT, metrics.counter("dsp_consent_total").tolist(), strict=True))
    engine.close()
    n = len(world.items)
    facts = {
        "requests, all distinct": len({item.json for item in world.items}),
        "market traffic": round(sum(item.market for item in world.items) / n, 4),
        "median JSON, bytes": int(np.median([len(item.json) for item in world.items])),
        "median protobuf, bytes": int(np.median([len(item.pb) for item in world.items])),
        "known person": round(profiles["found"] / (2 * n), 4),
        "bid rate, JSON": round(bids["http"] / n, 4),
        "bid rate, protobuf": round(bids["grpc"] / n, 4),
        "scored candidates per request": round(sum(scored) / (2 * n), 2),
        "mean answer, bytes (HTTP)": round(float(np.mean([len(answer) for answer in answers["http"]]))),
        "mean answer, bytes (gRPC)": round(float(np.mean([len(answer) for answer in answers["grpc"]]))),
        "consent": {name: round(count / (2 * n), 4) for name, count in consent.items() if count},
    }
    return Mix(facts, requirements(facts), answers)


def requirements(facts: dict[str, Any]) -> list[str]:
    """What of the standard mix (issue, item 11) these facts miss."""
    rules = {
        "at least 80 % market traffic": facts["market traffic"] >= 0.8,
        "a median of at least 1.8 kB JSON": facts["median JSON, bytes"] >= 1800,
        "at least 90 % with a known person": facts["known person"] >= 0.9,
        "a bid rate of 60 to 80 %": 0.6 <= facts["bid rate, JSON"] <= 0.8 and 0.6 <= facts["bid rate, protobuf"] <= 0.8,
        "about 8 scored candidates": 7 <= facts["scored candidates per request"] <= 9,
        "thousands of distinct bodies": facts["requests, all distinct"] >= 2000,
    }
    return [f"the mix misses: {rule}" for rule, holds in rules.items() if not holds]
