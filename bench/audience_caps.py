"""Caps under fire: eight workers, one person, one ledger; what was billed against the cap.

`python -m bench audience caps [--hosts 3]`. Each worker is a process with an engine of its own that decides the same
person's requests as fast as it can; the ledger's side bills two of three bids at once and reports the third as lost.
With several hosts each has its own table of bids in flight, and the states are one store, as with Aerospike.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dsp.audience.inflight import FILE_NAME, InFlight
from dsp.audience.lmdb_frequency import FILE_NAME as STATES_NAME
from dsp.base.config import AudienceConfig, BidderConfig, Config
from dsp.base.metrics import Metrics
from dsp.base.token import TOKEN_TEXT_BYTES, Signer
from dsp.bidder.answer import BID
from dsp.bidder.engine import Engine
from dsp.bidder.slices import Slices
from dsp.catalog.compile import compile_catalog
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, load_catalog, open_catalog
from dsp.ledger.news import AudienceNews
from dsp.ledger.notices import read_notice
from dsp.model.bootstrap import bootstrap_model
from dsp.model.score import Scorer
from dsp.openrtb.columns import FMT_JSON

WORKERS = 8
SIGNER = Signer({1: b"a key of this bench only"})
TOKEN = re.compile(rb"/b/([A-Za-z0-9_-]{%d})" % TOKEN_TEXT_BYTES)
CATALOG = """
exchanges: [{name: alpha, id: 1, currency: USD, exp_s: 60}]
offers: [{name: loan, product: loan, lender: L, payouts: {apply: 1}}]
advertisers:
  - name: lender
    seat: s
    domain: [lender.example]
    category: [IAB13-7]
    currency: USD
    timezone: UTC
    campaigns:
      - name: c
        line_items:
          - name: loans
            offer: loan
            strategy: fixed
            max_bid_cpm: 4
            budget: {total: 1000000}
            frequency: [{cap: CAP, per: day}]
            creatives:
              - {name: box, format: banner, size: 300x250, landing: "https://lender.example/", headline: A loan}
"""
REQUEST = {
    "id": "r",
    "at": 1,
    "tmax": 1000,
    "imp": [{"id": "1", "banner": {"format": [{"w": 300, "h": 250}]}}],
    "site": {"domain": "news.example", "publisher": {"id": "p"}},
    "device": {
        "ua": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
        "ifa": "8c1b2d3e-0000-4000-8000-0000000000aa",
        "geo": {"country": "USA"},
    },
}


def main(argv: list[str]) -> int:
    """Run and print JSON lines; 1 where more than the bound was billed."""
    parser = argparse.ArgumentParser(prog="bench audience caps", description=__doc__)
    parser.add_argument("--cap", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=0, help="0: one host, then three")
    parser.add_argument("--seconds", type=float, default=12.0)
    args = parser.parse_args(argv)
    held = True
    for hosts in [args.hosts] if args.hosts else [1, 3]:
        with tempfile.TemporaryDirectory() as root:
            row = hammer(Path(root), args.cap, hosts, args.seconds)
        bound = args.cap + hosts - 1
        good = row["billed"] <= bound
        held &= good
        bar = f"billed ≤ {bound} (cap {args.cap}, {hosts} host{'s' if hosts > 1 else ''})"
        print(json.dumps({**row, "bar": bar, "held": good}), flush=True)
    return 0 if held else 1


def hammer(root: Path, cap: int, hosts: int, seconds: float) -> dict[str, Any]:
    """One run."""
    configs = [_config(root / f"host-{h}", hosts) for h in range(hosts)]
    for config in configs:
        config.root.mkdir(parents=True)
    states = configs[0].path(STATES_NAME)
    states.mkdir()
    for config in configs[1:]:
        config.path(STATES_NAME).symlink_to(states)
        config.path("secrets").symlink_to(configs[0].path("secrets"))
    snapshot, scorer = _material(configs[0], cap)
    _engine(configs[0], snapshot, scorer).close()  # secrets made, kernels compiled
    configs[0].path(FILE_NAME).unlink()
    reader, writer = os.pipe()
    workers = [_fork(writer, w % hosts, configs[w % hosts], snapshot, scorer, seconds) for w in range(WORKERS)]
    os.close(writer)
    news = AudienceNews(configs[0])
    news.attach(snapshot)
    tables = [InFlight(config.path(FILE_NAME)) for config in configs]
    seen: Counter[str] = Counter()
    decided = 0
    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            kind, host, text = line.split()
            if kind == b"done":
                decided += int(text)
                continue
            seen["bids"] += 1
            outcome = "lost" if seen["bids"] % 3 == 0 else "billed"
            seen[outcome] += 1
            news._inflight = tables[int(host)]
            path, query = ("l", {"r": "102"}) if outcome == "lost" else ("b", {"p": "2"})
            news.tell([read_notice(SIGNER, path, text.decode(), query, time.time_ns() // 1_000_000, {})])
    for pid in workers:
        assert os.waitpid(pid, 0)[1] == 0
    news.close()
    return {
        "measure": "caps",
        "workers": WORKERS,
        "hosts": hosts,
        "requests": decided,
        "requests_per_s": round(decided / seconds),
        **{name: seen[name] for name in ("bids", "lost", "billed")},
    }


def _config(root: Path, hosts: int) -> Config:
    return Config(
        data_dir=str(root), bidder=BidderConfig(log_decisions=False), audience=AudienceConfig(bidder_hosts=hosts)
    )


def _material(config: Config, cap: int) -> tuple[Snapshot, Scorer]:
    file = config.path("catalog.yaml")
    file.write_text(CATALOG.replace("CAP", str(cap)))
    database = open_catalog(config.path("catalog.db"))
    apply_file(database, file)
    arrays, meta = compile_catalog(load_catalog(database), 1, "https://dsp.example", time.time())
    database.dispose()
    return Snapshot(arrays, meta, 1), Scorer.load(bootstrap_model(config))


def _engine(config: Config, snapshot: Snapshot, scorer: Scorer) -> Engine:
    engine = Engine.open(
        replace(config), snapshot=snapshot, scorer=scorer, slices=Slices.fixed(snapshot.li_i[:, 0].copy(), 10**15),
        signer=SIGNER, metrics=Metrics.memory("bidder"),
    )  # fmt: skip
    engine.decide([json.dumps(REQUEST | {"test": 1}).encode()] * 2, [FMT_JSON] * 2, [0] * 2)
    return engine


def _fork(out: int, host: int, config: Config, snapshot: Snapshot, scorer: Scorer, seconds: float) -> int:
    """A worker process: decides for so long, writes each bid's token to ``out``."""
    pid = os.fork()
    if pid:
        return pid
    engine = _engine(config, snapshot, scorer)
    body, decided = json.dumps(REQUEST).encode(), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for kind, payload in engine.decide([body] * 4, [FMT_JSON] * 4, [0] * 4):
            if kind == BID:
                found = TOKEN.search(bytes(payload))
                assert found is not None
                os.write(out, b"bid %d %s\n" % (host, found[1]))
        decided += 4
    os.write(out, b"done %d %d\n" % (host, decided))
    os._exit(0)
