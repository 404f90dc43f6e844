"""The real server on a real socket, in a child process, as `python -m dsp.ledger` runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from ledger_role import Role, publish

from dsp.base.config import PartnerConfig
from dsp.base.token import load_signer
from dsp.bidder.slices import Slices
from dsp.bidder.sync import GrpcTransport, HttpTransport
from dsp.control.grants import SyncRequest, encode_request, sync_key
from dsp.ledger.adjust import Adjustment
from dsp.ledger.books import Books
from dsp.ledger.bulk import LINES_MAX
from dsp.ledger.control import Adjust, Resume, Stop, Stops
from dsp.ledger.server import EXIT_FENCED
from dsp.log.outcomes import BILLING, LOSS, read_outcomes


@pytest.fixture(scope="module")
def role(tmp_path_factory):
    partner = PartnerConfig(
        "adjust", click="clickid", event="name", applied=("application",), secret="key", password="s"
    )
    role = Role(tmp_path_factory.mktemp("ledger"), partners=(partner,))
    publish(role.config)
    role.start()
    yield role
    role.close()


def spend(role: Role) -> int:
    return role.spend()


def test_notices_are_booked_once_by_get_and_post(role):
    before = spend(role)
    token = role.token()
    for _ in range(3):
        assert role.client.get(f"/b/{token}?p=7.5&c=USD").status_code == 204
    assert role.client.post(f"/b/{token}?p=7.5").status_code == 204
    assert spend(role) == before + 7500
    assert role.metric('requests_total{path="b",result="duplicate"}') >= 3


def test_how_a_video_goes_on_is_no_impression(role):
    token = role.token()
    before = role.client.get("/totals").json()["events"].get("impression", {"n": 0})["n"]
    for query in ("e=start", "e=error&code=303", "e=complete"):
        assert role.client.get(f"/i/{token}?{query}").status_code == 200
    assert role.client.get("/totals").json()["events"].get("impression", {"n": 0})["n"] == before
    assert role.client.get(f"/i/{token}").status_code == 200
    assert role.client.get("/totals").json()["events"]["impression"]["n"] == before + 1


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
def test_refusals_have_their_status_are_counted_and_change_nothing(role, path, status):
    before, refused = role.client.get("/totals").json(), role.refusals()
    answer = role.client.get(path.format(token=role.token()))
    assert answer.status_code == status
    assert answer.text.strip()
    assert role.client.get("/totals").json() == before
    assert role.refusals() == refused + 1


@pytest.mark.parametrize(
    ("path", "age_s", "status"),
    [("b", 8 * 86_400, 410), ("n", 8 * 86_400, 410), ("p", 91 * 86_400, 410), ("b", -3600, 400)],
)
def test_notices_of_another_time_are_refused(role, path, age_s, status):
    before, refused = role.client.get("/totals").json(), role.refusals()
    token = role.token(time_s=int(time.time()) - age_s)
    assert role.client.get(f"/{path}/{token}?p=5&e=funded").status_code == status
    assert role.client.get("/totals").json() == before
    assert role.refusals() == refused + 1


def test_a_conversion_may_come_weeks_after_its_bid(role):
    token = role.token(time_s=int(time.time()) - 60 * 86_400)
    assert role.client.get(f"/p/{token}?e=funded&v=10").status_code == 204


def test_a_partners_postbacks_are_booked_once_by_get_form_and_json(role):
    before = role.client.get("/totals").json()["events"]["applied"]["n"]
    values = {"clickid": role.token(), "name": "application", "key": "s"}
    assert role.client.get("/m/adjust", params=values).status_code == 204
    assert role.client.post("/m/adjust", data=values).status_code == 204
    assert role.client.post("/m/adjust", json=values).status_code == 204
    assert role.client.get("/m/adjust", params=values | {"name": "session"}).status_code == 204
    assert role.client.get("/totals").json()["events"]["applied"]["n"] == before + 1
    assert role.client.get("/m/adjust", params=values | {"key": "wrong"}).status_code == 403
    assert role.client.get("/m/nobody", params=values).status_code == 404


def test_other_methods_are_refused(role):
    assert role.client.delete(f"/b/{role.token()}?p=1").status_code == 405


TRANSPORTS = {
    "http": lambda role, key: HttpTransport(role.config.ledger.host, role.config.ledger.port, key),
    "grpc": lambda role, key: GrpcTransport(role.config.ledger.host, role.config.ledger.grpc_port, key),
}


@pytest.mark.parametrize(("name", "refusal"), [("http", "403"), ("grpc", "PERMISSION_DENIED")])
def test_nobody_takes_slices_without_the_key(role, name, refusal):
    transport = TRANSPORTS[name](role, b"wrong key")
    with pytest.raises(OSError, match=refusal):
        transport.sync(SyncRequest("thief", 0, 0, 0, 0, 0))
    transport.close()


@pytest.mark.parametrize(("name", "refusal"), [("http", "400"), ("grpc", "INVALID_ARGUMENT")])
def test_a_sync_that_is_not_whole_records_is_refused(role, name, refusal):
    transport = TRANSPORTS[name](role, sync_key(load_signer(role.config.path("secrets", "signing.json")).sync_secret))
    with pytest.raises(OSError, match=refusal):
        transport.sync(SyncRequest("w", 0, 0, 0, 0, 0, b"xyz"))
    transport.close()


def test_garbage_is_not_a_sync(role):
    assert role.client.post("/sync", content=encode_request(SyncRequest("thief", 0, 0, 0, 0, 0))).status_code == 403
    assert role.client.post("/sync", content=b"garbage", headers={"x-dsp-signature": "00"}).status_code == 403


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_worker_gets_its_slice_and_gives_it_back(role, transport):
    ledger = msgspec.structs.replace(role.config.ledger, sync_transport=transport)
    slices = Slices(msgspec.structs.replace(role.config, ledger=ledger), worker="w")
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


# --- bulk, senders, orders --------------------------------------------------------------------------------------------


def bulk(role: Role, lines: list[str]) -> dict:
    answer = role.client.post("/notices", content="\n".join(lines))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_many_notices_in_one_body_are_booked_once_and_the_bad_ones_named(role):
    before = spend(role)
    lines = [f"/b/{role.token()}?p=5" for _ in range(30)]
    answer = bulk(role, [*lines, lines[0], "/b/forged?p=5", f"/b/{role.token()}?p=-1", f"/l/{role.token()}?r=102"])
    assert (answer["booked"], answer["duplicates"], answer["refused"]) == (31, 1, 2)
    assert answer["refusals"] == [[32, 403, "token"], [33, 400, "price"]]
    assert spend(role) == before + 150_000
    again = role.client.post("/notices", json=lines).json()
    assert (again["booked"], again["duplicates"]) == (0, 30)
    assert spend(role) == before + 150_000


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\xff\xfe/b/", {}, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b"[1, 2]", {"content-type": "application/json"}, 400),
        (b"/b/x\n" * (LINES_MAX + 1), {}, 413),
        (b"x" * (9 << 20), {}, 413),
    ],
)
def test_bodies_that_are_not_notices_are_refused(role, content, headers, status):
    before = spend(role)
    assert role.client.post("/notices", content=content, headers=headers).status_code == status
    assert spend(role) == before


def test_a_postback_may_have_its_parameters_in_the_body(role):
    before = role.client.get("/totals").json()["events"]["funded"]
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = role.client.post(f"/p/{role.token()}", content="e=funded&v=12.5", headers=form)
    assert answer.status_code == 204
    after = role.client.get("/totals").json()["events"]["funded"]
    assert (after["n"] - before["n"], after["value"] - before["value"]) == (1, 12.5)
    assert role.client.post(f"/p/{role.token()}", content=b"e=funded&x=" + b"y" * 9000).status_code == 413


def test_an_exchange_reports_on_its_own_bids_only(role):
    before = spend(role)
    ours, theirs, unknown = ({"authorization": f"Bearer {name}"} for name in ("seven", "eight", "nobody"))
    token = role.token()
    assert role.client.get(f"/b/{token}?p=5", headers=theirs).status_code == 403
    assert role.client.get(f"/b/{token}?p=5", headers=unknown).status_code == 403
    assert spend(role) == before
    assert role.client.get(f"/b/{token}?p=5", headers=ours).status_code == 204
    assert spend(role) == before + 5000


def test_an_operators_stop_and_kill_switch_reach_a_worker_within_a_second(role):
    slices = Slices(role.config, worker="stopped")
    slices.attach(np.array([1]))

    def bidding() -> bool:
        slices.refresh(time.monotonic_ns())
        return slices.live(time.monotonic_ns()) and bool(slices.available[0])

    role.wait_for(bidding)
    for what, number in (("everything", 0), ("line_item", 1)):
        assert role.order(Stop(time.time(), what, number, "a test")).json() == {"stopped": True}
        started = time.monotonic()
        role.wait_for(lambda: not bidding())
        assert time.monotonic() - started < 1
        assert [stop["what"] for stop in role.order(Stops(time.time())).json()["stops"]] == [what]
        assert role.order(Resume(time.time(), what, number)).json() == {"resumed": True}
        started = time.monotonic()
        role.wait_for(bidding)
        assert time.monotonic() - started < 2
    slices.close()


def test_orders_need_the_key_and_a_fresh_time(role):
    assert role.client.post("/control", content=b"{}").status_code == 403
    assert role.order(Stop(time.time() - 3600)).status_code == 400
    assert role.order(Stops(time.time())).json() == {"stops": []}


def test_an_adjustment_is_posted_once_and_a_wrong_one_explained(role):
    role.client.get(f"/b/{role.token()}?p=5")
    before = spend(role)
    back = Adjustment("IVT-1", "clawback", 3000, line_item=1, exchange=7)
    assert role.order(Adjust(time.time(), back)).json() == {"posted": True}
    assert role.order(Adjust(time.time(), back)).json() == {"posted": False}
    assert spend(role) == before - 3000
    wrong = role.order(Adjust(time.time(), Adjustment("IVT-2", "clawback", 10**15, line_item=1, exchange=7)))
    assert wrong.status_code == 400
    assert "has spent" in wrong.text
    assert spend(role) == before - 3000


def test_the_command_line_stops_lists_resumes_and_books(role):
    def dsp(*arguments: str) -> str:
        command = [sys.executable, "-m", "dsp.cli.main", "--config", str(role.file), "ledger", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip() or done.stderr.strip()

    assert dsp("stop", "line_item", "1", "--why", "looks odd") == "stopped line_item 1"
    assert dsp("stops") == "line_item 1: person looks odd"
    assert dsp("resume", "line_item", "1") == "resumed line_item 1"
    deposit = ("adjust", "deposit", "125.50", "--key", "bank-1", "--advertiser", "100", "--currency", "usd")
    assert dsp(*deposit) == "booked"
    assert dsp(*deposit) == "nothing done: bank-1 was booked before"
    assert "none of deposit, refund" in dsp("adjust", "gift", "1", "--key", "x")
