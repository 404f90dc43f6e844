"""How long the console's widest report takes: 90 days of 10,000 line items, each with spend every day.

`python -m bench report`. Rollups are made as the ledger makes them, written to a SQLite file, and asked for through
`dsp.ledger.report`: by line item (10,000 rows), by day, and by day for one advertiser. Medians of several turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import track

from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.reader import open_file
from dsp.ledger.report import Question, ask
from dsp.ledger.rollups import ALL, GRAINS
from dsp.ledger.schema import LINES, MEASURES, ROLLUP_DAYS

BAR_S = 0.5
FIRST = 20_003  # not the beginning of a stretch: the worst case


def fill(path: Path, line_items: int, days: int, seed: int = 1) -> None:
    """Books with nothing but rollups; 100 line items to an advertiser."""
    rng = np.random.default_rng(seed)
    engine = open_database(path, durable=False)
    names = ["kind", "grain", "day", "ref", "currency", *MEASURES]
    insert = f"INSERT INTO rollup_days ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    stretches: dict[tuple[int, int], np.ndarray] = {}
    with engine.begin() as connection:
        connection.execute(
            LINES.insert(),
            [
                {"id": i, "campaign": 1 + i // 10, "advertiser": 1 + i // 100, "currency": "USD", "name": f"line {i}"}
                for i in range(line_items)
            ],
        )
        for day in track(range(FIRST, FIRST + days + GRAINS[-1]), "filling", transient=True):
            amounts = rng.integers(0, 1000, (line_items, len(MEASURES)))
            amounts[:, 1:3] *= 1_000_000
            for grain in GRAINS[1:]:
                key = grain, day - day % grain
                stretches[key] = stretches.get(key, 0) + amounts
            for kind, width in ((LINE_ITEM, 1), (CAMPAIGN, 10), (ADVERTISER, 100), (ALL, line_items)):
                sums = amounts.reshape(-1, width, len(MEASURES)).sum(1).tolist()
                rows = [(kind, 1, day, i if width == 1 else i + (kind != ALL), "USD", *r) for i, r in enumerate(sums)]
                connection.exec_driver_sql(insert, rows)
        for (grain, start), amounts in stretches.items():
            rows = [(LINE_ITEM, grain, start, i, "USD", *r) for i, r in enumerate(amounts.tolist())]
            connection.exec_driver_sql(insert, rows)
    assert ROLLUP_DAYS.name == "rollup_days"
    engine.dispose()


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("--line-items", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        fill(path, options.line_items, options.days)
        last = FIRST + options.days - 1
        for name, question in (
            ("by line item", Question(FIRST, last, ("line_item",))),
            ("by day", Question(FIRST, last, ("day",))),
            ("by day, one advertiser", Question(FIRST, last, ("day",), {"advertiser": [7]})),
            ("by line item, one advertiser", Question(FIRST, last, ("line_item",), {"advertiser": [7]})),
        ):
            seconds, rows = [], 0
            for _ in range(options.turns):
                began = time.perf_counter()
                engine = open_file(path)
                rows = len(ask(engine, question))
                seconds.append(time.perf_counter() - began)
                engine.dispose()
            print(
                json.dumps(
                    {
                        "bench": "report",
                        "report": name,
                        "line_items": options.line_items,
                        "days": options.days,
                        "rows": rows,
                        "median_s": round(float(np.median(seconds)), 4),
                        "worst_s": round(max(seconds), 4),
                        "bar_s": BAR_S,
                    }
                )
            )
    return 0
