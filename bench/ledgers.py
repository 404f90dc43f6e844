"""What benchmarks of the ledger share: a published snapshot of many line items, sealed tokens, databases by name."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.postgres import Postgres
from bench.procs import free_port
from dsp.base.config import Config, LedgerConfig
from dsp.base.token import TOKEN, TOKEN_BYTES, TOKEN_TEXT_BYTES, Signer, seal_records
from dsp.catalog.layout import CR_WIDTH, EX_BILLABLE, EX_EXP_S, EX_ID, EX_WIDTH, LI_ID, LI_MAX_BID, LI_WIDTH, LIV_WIDTH
from dsp.catalog.snapshot import ARRAYS, write_snapshot

EXCHANGE = 7
MAX_BID = 10_000  # micros an impression
BACKENDS = ("sqlite", "postgresql")


def publish(config: Config, budgets: Sequence[int], *, exp_s: int = 10, version: int = 1) -> None:
    """A snapshot with just what the ledger reads: line items 1.. of one campaign with these total budgets, micros."""
    n, limit = len(budgets), 1 << 62
    arrays: dict[str, npt.NDArray[Any]] = {name: np.zeros((0,) * ndim, kind) for name, (kind, ndim) in ARRAYS.items()}
    arrays["li_i"] = np.zeros((n, LI_WIDTH), np.int64)
    arrays["li_i"][:, LI_ID] = np.arange(1, n + 1)
    arrays["li_i"][:, LI_MAX_BID] = MAX_BID * 1000
    arrays["li_v"] = np.zeros((n, LIV_WIDTH))
    arrays["ex_i"] = np.zeros((1, EX_WIDTH), np.int64)
    arrays["ex_i"][0, [EX_ID, EX_EXP_S, EX_BILLABLE]] = EXCHANGE, exp_s, 0
    arrays["cr_i"] = np.zeros((1, CR_WIDTH), np.int64)
    meta = {
        "version": version,
        "advertisers": {"id": [100], "timezone": ["UTC"], "total_micros": [limit], "daily_micros": [limit]},
        "campaigns": {"id": [10], "total_micros": [limit], "daily_micros": [limit]},
        "line_items": {
            "id": list(range(1, n + 1)),
            "name": [f"line {i}" for i in range(1, n + 1)],
            "campaign_id": [10] * n,
            "advertiser_id": [100] * n,
            "currency": ["USD"] * n,
            "total_micros": [int(budget) for budget in budgets],
            "daily_micros": [limit] * n,
        },
        "creatives": {"id": [5], "landing": ["https://bank.example/"]},
        "exchanges": [{"id": EXCHANGE, "token": "seven"}],
    }
    directory = config.path("snapshots")
    directory.mkdir(parents=True, exist_ok=True)
    write_snapshot(directory / f"{version:06d}.snap", arrays, meta)
    (directory / "next").write_text(f"{version:06d}.snap\n")
    (directory / "next").rename(directory / "CURRENT")


def seal(signer: Signer, n: int, first_bid_id: int, **fields: Any) -> list[str]:
    """``n`` tokens with ids from ``first_bid_id``; ``fields`` are values or arrays for `TOKEN`."""
    records = np.zeros(n, TOKEN)
    defaults = {
        "kid": signer.kid,
        "exchange": EXCHANGE,
        "creative": 5,
        "currency": b"USD",
        "fx": 1.0,
        "reserve_micros": MAX_BID,
        "bid_cpm_micros": MAX_BID * 1000,
        "bid_id": np.arange(first_bid_id, first_bid_id + n, dtype=np.uint64),
        "time_s": int(time.time()),
    }
    for name, value in {**defaults, **fields}.items():
        records[name] = value
    raw = records.view(np.uint8).reshape(n, TOKEN_BYTES)
    texts = np.empty((n, TOKEN_TEXT_BYTES), np.uint8)
    seal_records(n, raw, *signer.keys, texts)
    return [row.tobytes().decode() for row in texts]


@contextlib.contextmanager
def ledger_config(backend: str, root: Path | None = None, **settings: Any) -> Iterator[tuple[Config, Postgres | None]]:
    """A configuration under a directory of its own, on free ports, and the server behind it if there is one."""
    directory = Path(tempfile.mkdtemp(prefix="dsp-ledger-")) if root is None else root
    server = Postgres() if backend == "postgresql" else None
    database = server.create() if server is not None else ""
    ledger = LedgerConfig(port=free_port(), grpc_port=free_port(), database=database, **settings)
    try:
        yield Config(data_dir=str(directory), ledger=ledger), server
    finally:
        if server is not None:
            server.close()
        if root is None:
            shutil.rmtree(directory, ignore_errors=True)
