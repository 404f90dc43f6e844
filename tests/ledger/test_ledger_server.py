"""The real server on a real socket, in a child process, as `python -m dsp.ledger` runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from ledger_world import World

from dsp.base.config import Config, LedgerConfig
from dsp.base.token import load_signer
from dsp.bidder.slices import Slices
from dsp.bidder.sync import HttpTransport
from dsp.catalog.layout import CR_WIDTH, EX_BILLABLE, EX_EXP_S, EX_ID, EX_WIDTH, LI_ID, LI_MAX_BID, LI_WIDTH
from dsp.catalog.snapshot import ARRAYS, write_snapshot
from dsp.control.grants import SyncRequest, encode_request
from dsp.ledger.books import Books
from dsp.ledger.server import EXIT_FENCED
from dsp.log.outcomes import BILLING, LOSS, read_outcomes

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
    }
    directory = config.path("snapshots")
    directory.mkdir(parents=True, exist_ok=True)
    write_snapshot(directory / f"{version:06d}.snap", arrays, meta)
    (directory / "next").write_text(f"{version:06d}.snap\n")
    (directory / "next").rename(directory / "CURRENT")


class Role:
    """The child process and a client for it."""

    def __init__(self, root) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.config = Config(data_dir=str(root), ledger=LedgerConfig(port=port))
        self.file = root / "config.yaml"
        self.file.write_text(json.dumps({"data_dir": str(root), "ledger": {"port": port}}))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
        self.tokens = World(":memory:", signer=load_signer(self.config.path("secrets", "signing.json")))
        self.process: subprocess.Popen | None = None

    def token(self, **fields) -> str:
        return self.tokens.token(**{"time_s": int(time.time()), **fields}).decode()

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "DSP_DATA_DIR"}
        self.process = subprocess.Popen([sys.executable, "-m", "dsp.ledger", str(self.file)], env=environment)
        self.wait_for(lambda: self.client.get("/readyz").status_code == 200)

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


@pytest.fixture(scope="module")
def role(tmp_path_factory):
    role = Role(tmp_path_factory.mktemp("ledger"))
    publish(role.config)
    role.start()
    yield role
    if role.process is not None:
        assert role.stop(signal.SIGTERM) == 0
    role.client.close()
    role.tokens.books.close()


def spend(role: Role) -> int:
    return role.client.get("/totals").json()["spend_micros"]


def test_notices_are_booked_once_by_get_and_post(role):
    before = spend(role)
    token = role.token()
    for _ in range(3):
        assert role.client.get(f"/b/{token}?p=7.5&c=USD").status_code == 204
    assert role.client.post(f"/b/{token}?p=7.5").status_code == 204
    assert spend(role) == before + 7500
    assert role.metric('requests_total{path="b",result="duplicate"}') >= 3


def test_totals_reconcile_with_the_notices(role):
    before = role.client.get("/totals").json()
    for price in ("1.001", "2.002", "3.003"):
        role.client.get(f"/b/{role.token()}?p={price}")
    after = role.client.get("/totals").json()
    sums = [t["events"]["billing"] for t in (before, after)]
    assert sums[1]["n"] - sums[0]["n"] == 3
    assert sums[1]["charge_micros"] - sums[0]["charge_micros"] == 6006
    assert after["spend_micros"] == sums[1]["posted_micros"] == after["line_items"]["1"]["spend_micros"]


def test_a_click_is_redirected_to_the_catalogs_landing_page_only(role):
    role.wait_for(lambda: role.metric("snapshot_version") == 1)
    token = role.token()
    answer = role.client.get(f"/c/{token}?url=https://evil.example/")
    assert answer.status_code == 302
    assert answer.headers["location"] == f"https://bank.example/apply?product=1&dsp_click_id={token}#form"
    assert role.client.get(f"/c/{role.token(creative=404)}").status_code == 404


def test_the_pixel_is_a_gif(role):
    answer = role.client.get(f"/i/{role.token()}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.content.startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/b/forged?p=1", 403),
        ("/b/{token}?p=-1", 400),
        ("/b/{token}?p=NaN", 400),
        ("/b/{token}?p=1000000000", 400),
        ("/p/{token}?e=unknown", 400),
        ("/z/{token}", 404),
        ("/", 404),
        ("/b/", 404),
        ("/nothing/here", 404),
        ("/b/{token}?p=" + "1" * 3000, 414),
    ],
)
def test_refusals_have_their_status_and_change_nothing(role, path, status):
    before = spend(role)
    answer = role.client.get(path.format(token=role.token()))
    assert answer.status_code == status
    assert answer.text.strip()
    assert spend(role) == before


def test_other_methods_are_refused(role):
    assert role.client.delete(f"/b/{role.token()}?p=1").status_code == 405


def test_nobody_takes_slices_without_the_key(role):
    body = encode_request(SyncRequest("thief", 0, 0, 0, 0, 0))
    assert role.client.post("/sync", content=body).status_code == 403
    assert role.client.post("/sync", content=b"garbage", headers={"x-dsp-signature": "00"}).status_code == 403
    transport = HttpTransport(role.config.ledger.host, role.config.ledger.port, b"wrong key")
    with pytest.raises(OSError, match="403"):
        transport.sync(SyncRequest("thief", 0, 0, 0, 0, 0))
    transport.close()


def test_a_worker_gets_its_slice_over_http_and_gives_it_back(role):
    slices = Slices(role.config, worker="w")
    slices.attach(np.array([1]))

    def granted() -> bool:
        slices.refresh(time.monotonic_ns())
        return bool(slices.available[0])

    role.wait_for(granted)
    assert slices.available[0] == 80_000  # eight of its largest bids
    slices.close()
    assert role.metric("leases") == 0


def test_a_new_snapshots_budget_takes_effect_within_two_seconds(role):
    publish(role.config, total_micros=2_000_000, version=2)
    started = time.monotonic()
    role.wait_for(lambda: role.metric("snapshot_version") == 2)
    assert time.monotonic() - started < 2


def test_kill_minus_nine_loses_nothing_that_was_acknowledged(role):
    tokens = [role.token() for _ in range(50)]
    before = spend(role)
    for token in tokens:
        assert role.client.get(f"/b/{token}?p=5").status_code == 204
    role.stop(signal.SIGKILL)
    role.start()
    assert spend(role) == before + 50 * 5000
    for token in tokens:
        assert role.client.get(f"/b/{token}?p=5").status_code == 204
    assert spend(role) == before + 50 * 5000


def test_sigterm_flushes_the_outcome_log(role):
    lost, won = role.token(bid_id=1 << 50), role.token(bid_id=1 << 51)
    assert role.client.get(f"/l/{lost}?r=102&m=11.5").status_code == 204
    assert role.client.get(f"/b/{won}?p=7.5").status_code == 204
    assert role.stop(signal.SIGTERM) == 0
    outcomes = read_outcomes(role.config.path("log", "outcomes"))
    row = np.flatnonzero((outcomes["bid_id"] == 1 << 50) & (outcomes["kind"] == LOSS))
    assert outcomes["price_micros"][row].tolist() == [11_500_000]
    assert outcomes["value"][row].tolist() == [102.0]
    row = np.flatnonzero((outcomes["bid_id"] == 1 << 51) & (outcomes["kind"] == BILLING))
    assert outcomes["price_micros"][row].tolist() == [7_500_000]
    role.start()


def test_a_fenced_ledger_refuses_and_ends(role):
    newer = Books.open(role.config.path("ledger.db"))
    token = role.token()
    assert role.client.get(f"/b/{token}?p=5").status_code == 503
    assert role.process.wait(20) == EXIT_FENCED
    newer.close()
    role.start()
    assert role.client.get(f"/b/{token}?p=5").status_code == 204
