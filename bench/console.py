"""How long the console takes to answer where a client has much: 500 campaigns, 10,000 line items, 90 days of rollups.

`python -m bench console`. Catalog and books are made as the product keeps them, then every page, list and report of one
dimension by day is asked for through the whole application (routing, session, access, SQL, JSON or HTML), as an owner
who sees everything and as an analyst of one advertiser. Milliseconds on the server, without the network, against a bar
of 500. One JSON line each, appended to ``bench/results/console.jsonl``; a page with a plot under ``bench/out``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from rich.progress import track
from sqlalchemy import Connection, Engine, select

from bench import console_interactive, console_load, console_obey
from bench.machine import facts
from dsp.base.config import Config
from dsp.catalog import tables
from dsp.catalog.publish import catalog_path
from dsp.catalog.store import apply_file, open_catalog
from dsp.console.access import ALL, Identity
from dsp.console.app import build
from dsp.console.edge import COOKIE
from dsp.console.services import Services, open_services
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.rollups import ALL as EVERYTHING
from dsp.ledger.rollups import CREATIVE, EXCHANGE, GRAINS, PAIRED, pair
from dsp.ledger.schema import LINES, MEASURES

BAR_MS = 500.0
RESULTS = Path(__file__).parent / "results" / "console.jsonl"
ADVERTISERS, PER_ADVERTISER = 50, 10  # campaigns
PER_CAMPAIGN, EXCHANGES = 20, 3
ANALYST = 4  # whose analyst asks
PASSWORD = "a password for a bench"
DIMENSIONS = ("", "advertiser", "campaign", "line_item", "exchange", "creative")


def fill_catalog(engine: Engine, directory: Path) -> None:
    """Copies of the example catalog's first line item under copies of its campaign and advertiser, two ads each."""
    from dsp.market.demo import example_catalog

    apply_file(engine, example_catalog())
    with engine.begin() as connection:
        first = {t.name: dict(connection.execute(select(t).limit(1)).mappings().one()) for t in _COPIED}
        exchanges = connection.execute(select(tables.exchange)).mappings().all()
        for table in reversed(_COPIED):
            connection.execute(table.delete())
        campaigns, lines = ADVERTISERS * PER_ADVERTISER, ADVERTISERS * PER_ADVERTISER * PER_CAMPAIGN
        made: list[tuple[Any, int, dict[str, Any]]] = [
            (tables.advertiser, ADVERTISERS, {}),
            (tables.campaign, campaigns, {"advertiser_id": PER_ADVERTISER}),
            (tables.line_item, lines, {"campaign_id": PER_CAMPAIGN}),
            (tables.creative, 2 * lines, {"line_item_id": 2}),
        ]
        for table, n, parent in made:
            rows = []
            for i in range(n):
                above = {name: 1 + i // width for name, width in parent.items()}
                rows.append({**first[table.name], "id": i + 1, "name": f"{table.name} {i + 1}", **above})
            connection.execute(table.insert(), rows)
        assert len(exchanges) > 0


_COPIED = (tables.advertiser, tables.campaign, tables.line_item, tables.creative)


def fill_books(path: Path, days: int, seed: int) -> int:
    """Rollups of ``days`` days until today, every line item at work on each of them; the first day."""
    rng = np.random.default_rng(seed)
    lines = ADVERTISERS * PER_ADVERTISER * PER_CAMPAIGN
    engine = open_database(path, durable=False)
    names = ["kind", "grain", "day", "ref", "currency", *MEASURES]
    insert = f"INSERT INTO rollup_days ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    last = (datetime.now(UTC).date() - datetime(1970, 1, 1).date()).days
    stretches: dict[tuple[int, int, int], np.ndarray] = {}
    of: dict[int, list[int]] = {}
    with engine.begin() as connection:
        each = [
            {
                "id": i + 1, "campaign": 1 + i // PER_CAMPAIGN, "advertiser": 1 + i // (PER_CAMPAIGN * PER_ADVERTISER),
                "currency": "USD", "name": f"line {i + 1}", "margin_ppm": 0,
            }
            for i in range(lines)
        ]  # fmt: skip
        connection.execute(LINES.insert(), each)
        for day in track(range(last - days + 1, last + 1), "filling the books", transient=True):
            amounts = rng.integers(0, 1000, (2 * lines, len(MEASURES)))
            amounts[:, 1:3] *= 1_000_000
            for kind, refs, sums in _sums(amounts):
                rows = [(kind, 1, day, ref, "USD", *row) for ref, row in zip(refs, sums.tolist(), strict=True)]
                connection.exec_driver_sql(insert, rows)
                of[kind] = refs
                for grain in GRAINS[1:]:
                    key = kind, grain, day - day % grain
                    stretches[key] = stretches.get(key, 0) + sums
        for (kind, grain, day), sums in stretches.items():
            rows = [(kind, grain, day, ref, "USD", *row) for ref, row in zip(of[kind], sums.tolist(), strict=True)]
            connection.exec_driver_sql(insert, rows)
        _fill_hours(connection, rng, last - days + 1, last)
    engine.dispose()
    return last - days + 1


def _fill_hours(connection: Connection, rng: np.random.Generator, first: int, last: int) -> None:
    """Every hour of the analyst's line items, from which by-exchange reports of an advertiser are read."""
    width = PER_CAMPAIGN * PER_ADVERTISER
    names = ["line_item", "hour", "exchange", "creative", "currency", *MEASURES]
    insert = f"INSERT INTO rollup_hours ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    hours = range(first * 24, last * 24 + 24)
    for line in range((ANALYST - 1) * width + 1, ANALYST * width + 1):
        amounts = rng.integers(0, 50, (len(hours), len(MEASURES))).tolist()
        rows = [(line, h, 1 + h % EXCHANGES, 2 * line, "USD", *row) for h, row in zip(hours, amounts, strict=True)]
        connection.exec_driver_sql(insert, rows)


def _sums(amounts: np.ndarray) -> list[tuple[int, list[int], np.ndarray]]:
    """(kind, whose, sums) from those of the ads, each of which is on one exchange."""
    widths = {CREATIVE: 1, LINE_ITEM: 2, CAMPAIGN: 2 * PER_CAMPAIGN, ADVERTISER: 2 * PER_CAMPAIGN * PER_ADVERTISER}
    found = [(EVERYTHING, [0], amounts.sum(0)[None])]
    exchange = np.arange(len(amounts)) % EXCHANGES
    for kind, width in widths.items():
        sums = amounts.reshape(-1, width, len(MEASURES)).sum(1)
        found.append((kind, list(range(1, len(sums) + 1)), sums))
        key = np.arange(len(amounts)) // width * EXCHANGES + exchange
        by_key = np.zeros((len(sums) * EXCHANGES, len(MEASURES)), np.int64)
        np.add.at(by_key, key, amounts)
        used = np.unique(key)
        refs = [pair(1 + k // EXCHANGES, 1 + k % EXCHANGES) for k in used.tolist()]
        found.append((PAIRED[kind], refs, by_key[used]))
    by_exchange = np.stack([amounts[i::EXCHANGES].sum(0) for i in range(EXCHANGES)])
    return [*found, (EXCHANGE, list(range(1, EXCHANGES + 1)), by_exchange)]


def asked(start: str) -> dict[str, str]:
    """What is measured: name -> path."""
    api = "/api/v1"
    found = {
        "GET campaigns": f"{api}/campaigns?limit=500",
        "GET line items": f"{api}/line-items?limit=500",
        "GET line items, last page": f"{api}/line-items?limit=500&after=9500",
        "GET line items, search": f"{api}/line-items?q=9999",
        "GET creatives": f"{api}/creatives?limit=500",
        "GET one line item": f"{api}/line-items/77",
        "GET offers": f"{api}/offers",
        "GET references": f"{api}/references",
        "GET changes": f"{api}/changes",
        "page overview": "/",
        "page campaigns": "/campaigns",
        "page line items": "/line-items",
        "page line items, by name": "/line-items?sort=name",
        "page line items, search": "/line-items?q=9999",
        "page campaign": "/campaigns/3",
        "page line item": "/line-items/77",
        "page new campaign": "/campaigns/new",
        "page new line item": "/campaigns/3/new-line-item",
        "page experiments": "/experiments",
        "page review": "/review",
        "page why": "/line-items/77/why",
        "page creatives": "/creatives",
        "page audiences": "/audiences",
        "page exchanges": "/exchanges",
        "page changes": "/changes",
        "page reports": "/reports",
    }
    for by in DIMENSIONS:
        for daily in ("false", "true"):
            name = f"report by {by or 'all'}{' and day' if daily == 'true' else ''}"
            found[name] = f"{api}/reports?by={by}&daily={daily}&start={start}&limit=1000"
    for i, first in enumerate(DIMENSIONS[1:], 2):
        for second in DIMENSIONS[i:]:
            for daily in ("false", "true"):
                name = f"report by {first} and {second}{', each day' if daily == 'true' else ''}"
                found[name] = f"{api}/reports?by={first},{second}&daily={daily}&start={start}&limit=1000"
    found["report by line_item and exchange, each day, compared"] = (
        f"{api}/reports?by=line_item,exchange&daily=true&start={start}&limit=1000&compare=true"
    )
    found["report by line_item and day, page 500"] = (
        f"{api}/reports?by=line_item&daily=true&start={start}&offset=500000"
    )
    found["report by line_item and exchange, each day, page 900"] = (
        f"{api}/reports?by=line_item,exchange&daily=true&start={start}&offset=900000"
    )
    found["page reports by line_item and day"] = f"/reports?by=line_item&daily=true&start={start}"
    found["page reports by campaign and exchange and day, compared"] = (
        f"/reports?by=campaign,exchange&daily=true&start={start}&compare=true"
    )
    return found


def _cookie(services: Services, email: str, roles: dict[int, str]) -> str:
    services.accounts.add_user(Identity(0, "setup", {ALL: "owner"}), email, PASSWORD, roles)
    return services.accounts.sign_in(email, PASSWORD, "", "bench")


async def _measure(
    services: Services, cookie: str, paths: dict[str, str], who: str, turns: int
) -> list[dict[str, Any]]:
    transport = httpx.ASGITransport(app=build(services), raise_app_exceptions=False)
    lines = []
    async with httpx.AsyncClient(transport=transport, base_url="http://bench", cookies={COOKIE: cookie}) as client:
        for name, path in track(paths.items(), f"asking as {who}", transient=True):
            taken, size, status = [], 0, 0
            for _ in range(turns):
                began = time.perf_counter()
                answer = await client.get(path, timeout=120)
                taken.append((time.perf_counter() - began) * 1e3)
                size, status = len(answer.content), answer.status_code
            median, worst = statistics.median(taken), max(taken)
            line = {"bench": "console", "who": who, "what": name, "status": status, "bytes": size}
            lines.append({**line, "median_ms": round(median, 1), "worst_ms": round(worst, 1), "bar_ms": BAR_MS})
    return lines


def main(args: list[str]) -> int:
    """Build, measure, print; 1 where the bar is missed. ``obey``, ``load``, ``interactive``: other benches."""
    others = {"obey": console_obey.main, "load": console_load.main, "interactive": console_interactive.main}
    if args[:1] and args[0] in others:
        return others[args[0]](args[1:])
    parser = argparse.ArgumentParser(prog="python -m bench console", description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a directory in which the data is made, or found again")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        config = Config(data_dir=str(directory))
        fresh = not catalog_path(config).exists()
        engine = open_catalog(catalog_path(config))
        if fresh:
            fill_catalog(engine, directory)
            fill_books(config.path("ledger.db"), options.days, options.seed)
        engine.dispose()
        services = open_services(config)
        start = (datetime.now(UTC).date().toordinal() - options.days + 1) - datetime(1970, 1, 1).toordinal()
        paths = asked(np.datetime64(start, "D").astype(str).item())
        lines = []
        stamp = int(time.time())
        for who, roles in (("owner", {ALL: "owner"}), ("analyst of one advertiser", {ANALYST: "analyst"})):
            cookie = _cookie(services, f"{who.replace(' ', '-')}-{stamp}@bench.example", roles)
            own = paths if who == "owner" else {k: v for k, v in paths.items() if "/3" not in v and "/77" not in v}
            lines += asyncio.run(_measure(services, cookie, own, who, options.turns))
    shared = {"time": stamp, "days": options.days, "line_items": ADVERTISERS * PER_ADVERTISER * PER_CAMPAIGN}
    with RESULTS.open("a") as file:
        for line in lines:
            text = json.dumps({**line, **shared, "machine": msgspec.to_builtins(facts())})
            file.write(text + "\n")
            print(json.dumps(line))
    slow = [line for line in lines if line["median_ms"] > BAR_MS or line["status"] != 200]
    print(f"{len(lines)} measured, {len(slow)} above {BAR_MS:.0f} ms or refused: {', '.join(s['what'] for s in slow)}")
    return 1 if slow else 0
