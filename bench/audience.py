"""The audience store, measured: `python -m bench audience load|read|aerospike|faults|caps|erase|frequency [options]`.

``load`` makes a Parquet file of people (3 ids, 10 segments, a full profile each), loads it through the loader that
`dsp audience load` uses and reads it back; with ``--people 10000000`` this is the audience's main bar (`make
bench-audience`). The others are in the modules named beside them. Every command prints JSON lines, the last with the
bars and whether they were held.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench.procs import OUT, SERVER_CPU, pin
from dsp.audience.identity import KIND_IFA, identity_key_many, load_pepper
from dsp.audience.lmdb_store import LmdbProfileStore, profiles_path
from dsp.audience.load import load_profiles
from dsp.audience.profile import PROFILE_BYTES
from dsp.audience.store import MAX_KEYS
from dsp.base.config import Config

COMMANDS = {
    "aerospike": "bench.audience_aerospike",
    "faults": "bench.audience_faults",
    "caps": "bench.audience_caps",
    "erase": "bench.audience_erase",
    "frequency": "bench.audience_frequency",
}
BLOCK = 1 << 17
SEGMENTS = 10
LOAD_BAR_PER_S = 100_000
BYTES_BAR = 250
READ_BAR_US = 10.0
BATCH = 32

U8 = npt.NDArray[np.uint8]


def main(argv: list[str]) -> int:
    """Run the named measurement."""
    args = list(argv)
    name = args.pop(0) if args and not args[0].startswith("-") else "load"
    if name in COMMANDS:
        return int(importlib.import_module(COMMANDS[name]).main(args))
    if name not in {"load", "read"}:
        print(f"no measurement named {name!r}; there are: load, read, {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog=f"bench audience {name}", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="use the file and the store of an earlier run")
    parser.add_argument("--seconds", type=float, default=10.0, help="of reading")
    options = parser.parse_args(args)
    pin(SERVER_CPU)
    config = Config(data_dir=str(OUT / f"audience-{options.people}"))
    held = True
    if name == "load":
        row = load(config, options.people, options.keep)
        held = row["rows_per_s"] >= LOAD_BAR_PER_S and row["bytes_per_person"] <= BYTES_BAR
        bar = f"≥ {LOAD_BAR_PER_S:,} rows/s, ≤ {BYTES_BAR} bytes a person"
        print(json.dumps({**row, "bar": bar, "held": held}), flush=True)
    row = read(config, options.people, options.seconds)
    good = row["p99_us"] <= READ_BAR_US
    print(json.dumps({**row, "bar": f"p99 ≤ {READ_BAR_US:.0f} us a profile", "held": good}), flush=True)
    return 0 if held and good else 1


def load(config: Config, people: int, keep: bool) -> dict[str, Any]:
    """Make the file, load it, measure what is on disk."""
    path = OUT / f"people-{people}.parquet"
    OUT.mkdir(parents=True, exist_ok=True)
    if not (keep and path.exists()):
        make_file(path, people)
    shutil.rmtree(config.root, ignore_errors=True)
    small = OUT / "people-warm.parquet"
    make_file(small, 1000)
    warm = Config(data_dir=str(OUT / "audience-warm"))
    load_profiles(warm, small)  # compiles the kernels
    shutil.rmtree(warm.root)
    began, cpu = time.perf_counter(), time.process_time()
    report = load_profiles(config, path)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert report.loaded == people, report
    size = (profiles_path(config.root) / "data.mdb").stat().st_size
    return {
        "measure": "load",
        "people": people,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_s": round(people / seconds),
        "file_bytes_per_row": round(path.stat().st_size / people),
        "bytes_per_person": round(size / people, 1),
    }


def read(config: Config, people: int, seconds: float) -> dict[str, Any]:
    """Batches of 32 people drawn by a power law, one id each, every person known; microseconds a profile."""
    pepper = load_pepper(config.path("secrets", "pepper.json"))
    rng = np.random.default_rng(5)
    persons = np.minimum(rng.zipf(1.2, 200_000) - 1, people - 1) * 7919 % people
    names = identity_key_many(KIND_IFA, [ifa.decode() for ifa in ifas(persons)], pepper)
    store = LmdbProfileStore(profiles_path(config.root))
    keys = np.zeros((BATCH * MAX_KEYS, 16), np.uint8)
    wanted = np.zeros(BATCH * MAX_KEYS, np.int64)
    wanted[::MAX_KEYS] = 1
    out, found = np.zeros((BATCH, PROFILE_BYTES), np.uint8), np.zeros(BATCH, np.int64)
    took: list[float] = []
    for turn in range(2):  # the first warms the page cache
        took.clear()
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            at = int(rng.integers(0, len(names) - BATCH))
            keys[::MAX_KEYS] = names[at : at + BATCH]
            began = time.perf_counter()
            store.read(keys, wanted, out, found)
            took.append(time.perf_counter() - began)
            assert found.all(), turn
    store.close()
    us = np.array(took) / BATCH * 1e6
    return {
        "measure": "read",
        "people": people,
        "batch": BATCH,
        "batches": len(us),
        **{f"p{q}_us": round(float(np.percentile(us, q)), 2) for q in (50, 99, 99.9)},
    }


def make_file(path: Path, people: int) -> None:
    """A Parquet file of ``people`` people."""
    writer: pq.ParquetWriter | None = None
    partial = path.with_suffix(".partial")
    for table in tables(people):
        writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
    partial.replace(path)


def tables(people: int) -> Iterator[pa.Table]:
    """Blocks of rows, each from its own generator."""
    for start in range(0, people, BLOCK):
        persons = np.arange(start, min(start + BLOCK, people))
        n = len(persons)
        rng = np.random.default_rng([11, start])
        columns: dict[str, pa.Array] = {
            "ifa": _texts(ifas(persons).view(np.uint8).reshape(n, 36)),
            "didmd5": _texts(_hex(rng.integers(0, 256, (n, 16), np.uint8))),
            "buyeruid": _texts(_hex(rng.integers(0, 256, (n, 8), np.uint8))),
            "exchange": pa.array(np.full(n, 7, np.int16)),
            "segments": _texts(_segments(rng, n)),
            "consent": pa.array(rng.integers(0, 4, n, np.uint8)),
            "age_band": pa.array(rng.integers(0, 7, n, np.uint8)),
            "income_band": pa.array(rng.integers(0, 7, n, np.uint8)),
            "gender": pa.array(rng.integers(0, 3, n, np.uint8)),
            "owned": pa.array(rng.integers(0, 32, n, np.uint8)),
            "recency_days": pa.array(rng.integers(0, 256, n, np.uint8)),
            "home_region": pa.array(rng.integers(0, 40, n, np.uint8)),
            "updated_d": pa.array(np.full(n, 20_800, np.uint16)),
        }
        for i in range(5):
            columns[f"lifecycle_{i + 1}"] = pa.array(rng.integers(0, 8, n, np.uint8))
            columns[f"intent_{i + 1}"] = pa.array(rng.integers(0, 256, n, np.uint8))
        for name in ("device", "multi_lender", "contact", "social", "region", "qualification"):
            columns[f"risk_{name}"] = pa.array(rng.integers(0, 256, n, np.uint8))
        yield pa.table(columns)


def ifas(persons: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
    """The advertising ids of persons: 36 characters, a function of the number."""
    raw = np.zeros((len(persons), 2), np.uint64)
    with np.errstate(over="ignore"):
        raw[:, 0] = (persons.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        raw[:, 1] = raw[:, 0] * np.uint64(0xBF58476D1CE4E5B9) ^ (raw[:, 0] >> np.uint64(31))
    text = _hex(raw.view(np.uint8).reshape(len(persons), 16))
    out = np.full((len(persons), 36), ord("-"), np.uint8)
    for source, target, length in ((0, 0, 8), (8, 9, 4), (12, 14, 4), (16, 19, 4), (20, 24, 12)):
        out[:, target : target + length] = text[:, source : source + length]
    return out.view("S36").reshape(len(persons))


_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def _hex(raw: U8) -> U8:
    out = np.empty((len(raw), raw.shape[1] * 2), np.uint8)
    out[:, ::2], out[:, 1::2] = _DIGITS[raw >> 4], _DIGITS[raw & 15]
    return out


def _segments(rng: np.random.Generator, n: int) -> U8:
    """Cells of ten segments like 1234:20900|..., 109 characters."""
    numbers = np.arange(SEGMENTS) * 800 + 1000 + rng.integers(0, 800, (n, SEGMENTS))
    days = rng.integers(20_800, 21_200, (n, SEGMENTS))
    cells = np.full((n, SEGMENTS, 11), ord("|"), np.uint8)
    for k in range(4):
        cells[:, :, k] = 48 + numbers // 10 ** (3 - k) % 10
    cells[:, :, 4] = ord(":")
    for k in range(5):
        cells[:, :, 5 + k] = 48 + days // 10 ** (4 - k) % 10
    return cells.reshape(n, SEGMENTS * 11)[:, :-1].copy()


def _texts(rows: U8) -> pa.Array:
    """Fixed-width text rows as a string column."""
    n, width = rows.shape
    starts = (np.arange(n + 1) * width).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(starts), pa.py_buffer(rows.tobytes())])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
