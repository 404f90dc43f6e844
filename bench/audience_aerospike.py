"""Aerospike, a real server on loopback: time and CPU of an engine batch's read, and the size of a record.

`python -m bench audience aerospike --hosts 127.0.0.1:3000`. The namespace "dsp" is used, its set "people" emptied
first. Reads are batches of 32 requests with one and with two identity keys each, profile and frequency state in the
same trip. CPU is this process's own, less what the same batch costs with a store that knows nobody.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.machine import cpu_seconds
from bench.procs import SERVER_CPU, pin
from dsp.audience.aerospike_store import SET, AerospikeStore, AerospikeWriter, connect, hosts_from
from dsp.audience.frequency import Shown, States
from dsp.audience.profile import PROFILE, PROFILE_BYTES
from dsp.audience.store import MAX_KEYS, EmptyStore, ProfileStore

BATCH = 32
PROFILE_BAR_US = 30.0
CPU_BAR_US = 25.0
IMPRESSIONS = 10
NOW = 1_790_000_000


def main(argv: list[str]) -> int:
    """Measure and print JSON lines; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench audience aerospike", description=__doc__)
    parser.add_argument("--hosts", default="127.0.0.1:3000")
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pid", type=int, default=0, help="of the server, to measure its CPU per key")
    args = parser.parse_args(argv)
    pin(SERVER_CPU)
    hosts = hosts_from(args.hosts)
    client = connect(hosts, 1000)
    client.truncate("dsp", SET, 0)
    names = np.random.default_rng(3).integers(0, 256, (args.people, 3, 16), np.uint8)
    print(json.dumps(fill(AerospikeWriter(hosts), names)), flush=True)
    print(json.dumps(record_size(client)), flush=True)
    held = True
    for keys_per_request in (1, 2):
        server = cpu_seconds(args.pid) if args.pid else 0.0
        row = measure(AerospikeStore(hosts, timeout_ms=1000), names, keys_per_request, args.seconds)
        if args.pid:  # the warming turn is a tenth of it, and is left out
            used = (cpu_seconds(args.pid) - server) * args.seconds / (args.seconds + 0.5)
            row["server_cpu_us_per_key"] = round(used / (row["batches"] * BATCH * keys_per_request) * 1e6, 2)
        empty = measure(EmptyStore(), names, keys_per_request, 1.0)
        row["added_cpu_us_per_request"] = round(row["cpu_us"] - empty["cpu_us"], 2)
        good = row["p50_us"] <= PROFILE_BAR_US and row["added_cpu_us_per_request"] <= CPU_BAR_US
        held &= good
        bar = f"p50 ≤ {PROFILE_BAR_US:.0f} us a profile, added CPU ≤ {CPU_BAR_US:.0f} us a request"
        print(json.dumps({**row, "bar": bar, "held": good}), flush=True)
    client.close()
    return 0 if held else 1


def fill(writer: AerospikeWriter, names: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Write everybody, then the impressions of a thousand."""
    records = np.zeros(len(names), PROFILE)
    records["person"] = np.arange(1, len(names) + 1)
    records["n_segments"] = 10
    records["segments"] = np.arange(1, 17)
    began = time.perf_counter()
    writer.write(records, names)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    counted = min(1000, len(names))
    for i in range(counted):
        subject = names[i, 0].tobytes()
        for k in range(IMPRESSIONS if i < 100 else 1):
            writer.count([(subject, Shown(NOW + k, 1, 2, 3, 4, 0))])
    each = (time.perf_counter() - began) / (counted + 9 * min(100, counted))
    writer.close()
    return {"measure": "write", "people_per_s": round(len(names) / seconds), "count_us": round(each * 1e6)}


def record_size(client: Any) -> dict[str, Any]:
    """What the server says it uses, over its records."""
    text = str(next(iter(client.info_all("namespace/dsp").values()))[1])
    facts = dict(part.split("=", 1) for part in text.strip().split(";") if "=" in part)
    objects = int(facts["objects"])
    return {
        "measure": "record",
        "objects": objects,
        "data_bytes": round(int(facts.get("data_used_bytes", 0)) / objects, 1),
        "index_bytes": round(int(facts.get("index_used_bytes", 0)) / objects, 1),
    }


def measure(store: ProfileStore, names: npt.NDArray[np.uint8], per_request: int, seconds: float) -> dict[str, Any]:
    """Batches of people drawn anew; microseconds a profile."""
    rng = np.random.default_rng(4)
    states, everybody = States(BATCH), np.ones(BATCH, np.int64)
    keys, wanted = np.zeros((BATCH * MAX_KEYS, 16), np.uint8), np.zeros(BATCH * MAX_KEYS, np.int64)
    out, found = np.zeros((BATCH, PROFILE_BYTES), np.uint8), np.zeros(BATCH, np.int64)
    took: list[float] = []
    for turn_s in (0.5, seconds):
        took.clear()
        cpu, began = 0.0, time.perf_counter()
        while time.perf_counter() < began + turn_s:
            people = rng.integers(0, len(names), BATCH)
            for k in range(per_request):
                keys[k::MAX_KEYS] = names[people, k]
                wanted[k::MAX_KEYS] = 1
            t0, c0 = time.perf_counter(), time.process_time()
            store.read(keys, wanted, out, found)
            if isinstance(store, AerospikeStore):
                store.states(BATCH, everybody, 1, states)
            took.append(time.perf_counter() - t0)
            cpu += time.process_time() - c0
    store.close()
    us = np.array(took) / BATCH * 1e6
    return {
        "measure": "read",
        "batch": BATCH,
        "keys_per_request": per_request,
        "batches": len(us),
        **{f"p{q}_us": round(float(np.percentile(us, q)), 2) for q in (50, 99)},
        "cpu_us": round(cpu / len(took) / BATCH * 1e6, 2),
    }
