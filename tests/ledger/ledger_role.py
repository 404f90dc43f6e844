"""The ledger role as a child process, and a client for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import msgspec
import numpy as np
from ledger_world import World

from dsp.base.config import Config, LedgerConfig
from dsp.base.token import load_signer
from dsp.catalog.layout import CR_WIDTH, EX_BILLABLE, EX_EXP_S, EX_ID, EX_WIDTH, LI_ID, LI_MAX_BID, LI_WIDTH
from dsp.catalog.snapshot import ARRAYS, write_snapshot
from dsp.control.grants import sign_sync, sync_key
from dsp.ledger.control import encode_order

LANDING = "https://bank.example/apply?product=1#form"


def publish(config: Config, total_micros: int = 1_000_000, version: int = 1) -> None:
    """A snapshot with just what the ledger reads."""
    arrays = {name: np.zeros((0,) * ndim, dtype) for name, (dtype, ndim) in ARRAYS.items()}
    arrays["li_i"] = np.zeros((1, LI_WIDTH), np.int64)
    arrays["li_i"][0, [LI_ID, LI_MAX_BID]] = 1, 10_000_000
    arrays["ex_i"] = np.zeros((1, EX_WIDTH), np.int64)
    arrays["ex_i"][0, [EX_ID, EX_EXP_S, EX_BILLABLE]] = 7, 10, 0
    arrays["cr_i"] = np.zeros((1, CR_WIDTH), np.int64)
    limit = 1 << 62
    meta = {
        "version": version,
        "advertisers": {"id": [100], "timezone": ["UTC"], "total_micros": [limit], "daily_micros": [limit]},
        "campaigns": {"id": [10], "total_micros": [limit], "daily_micros": [limit]},
        "line_items": {
            "id": [1],
            "name": ["Loan"],
            "campaign_id": [10],
            "advertiser_id": [100],
            "currency": ["USD"],
            "total_micros": [total_micros],
            "daily_micros": [limit],
        },
        "creatives": {"id": [5], "landing": [LANDING]},
        "exchanges": [{"id": 7, "token": "seven"}, {"id": 8, "token": "eight"}],
    }
    directory = config.path("snapshots")
    directory.mkdir(parents=True, exist_ok=True)
    write_snapshot(directory / f"{version:06d}.snap", arrays, meta)
    (directory / "next").write_text(f"{version:06d}.snap\n")
    (directory / "next").rename(directory / "CURRENT")


class Role:
    """The child process and a client for it."""

    def __init__(self, root, **settings) -> None:
        with socket.socket() as free, socket.socket() as other:
            for s in (free, other):
                s.bind(("127.0.0.1", 0))
            port, syncs = (s.getsockname()[1] for s in (free, other))
        settings = {"port": port, "grpc_port": syncs, **settings}
        self.config = Config(data_dir=str(root), ledger=LedgerConfig(**settings))
        self.file = root / "config.yaml"
        self.file.write_text(json.dumps({"data_dir": str(root), "ledger": msgspec.to_builtins(settings)}))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
        self.tokens = World(":memory:", signer=load_signer(self.config.path("secrets", "signing.json")))
        self.process: subprocess.Popen | None = None

    def token(self, **fields) -> str:
        return self.tokens.token(**{"time_s": int(time.time()), **fields}).decode()

    def start(self, *, ready: bool = True) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "DSP_DATA_DIR"}
        self.process = subprocess.Popen([sys.executable, "-m", "dsp.ledger", str(self.file)], env=environment)
        self.wait_for(lambda: self.client.get("/readyz" if ready else "/healthz").status_code == 200)

    def wait_for(self, condition) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process is None or self.process.poll() is None, "the ledger has ended"
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError("not in time")

    def stop(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"dsp_ledger_{name}"))

    def refusals(self) -> int:
        lines = [x for x in self.client.get("/metrics").text.splitlines() if x.startswith("dsp_ledger_requests_total{")]
        fine = ("new", "duplicate", "spooled", "ok", "test")
        return sum(int(x.rsplit(" ", 1)[1]) for x in lines if not any(f'result="{name}"' in x for name in fine))

    def order(self, order) -> httpx.Response:
        key = sync_key(load_signer(self.config.path("secrets", "signing.json")).sync_secret)
        body = encode_order(order)
        return self.client.post("/control", content=body, headers={"x-dsp-signature": sign_sync(key, body)})

    def spend(self) -> int:
        return self.client.get("/totals").json()["spend_micros"]

    def close(self) -> None:
        if self.process is not None:
            assert self.stop(signal.SIGTERM) == 0
        self.client.close()
        self.tokens.books.close()
