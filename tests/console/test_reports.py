"""Reports by two dimensions, compared, as files and saved: what they add up to, and whose they are."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from dsp.base.config import Config
from dsp.console.services import Services
from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.rollups import ALL, CREATIVE, EXCHANGE, GRAINS, PAIRED, pair
from dsp.ledger.schema import LINES, MEASURES, ROLLUP_DAYS

V = "/api/v1"
FIRST, LAST = 20_000, 20_019  # 2024-10-04 to 2024-10-23
SPAN = {"start": "2024-10-14", "end": "2024-10-23"}  # the second half
OWNERS = {1: (1, 1), 2: (1, 1), 3: (2, 2), 4: (2, 2)}  # line item -> campaign, advertiser


def impressions(line: int, day: int, exchange: int) -> int:
    return line * 100 + (day - FIRST) + 1000 * exchange


@pytest.fixture(autouse=True)
def booked(config: Config, services: Services) -> None:
    """Every line item on two exchanges, each day a little more, an ad each."""
    with services.catalog.engine.connect() as connection:
        ads = dict(connection.exec_driver_sql("SELECT line_item_id, min(id) FROM creative GROUP BY 1").fetchall())
    sums: dict[tuple[int, int, int, int], int] = {}
    for day in range(FIRST, LAST + 1):
        for line, (campaign, advertiser) in OWNERS.items():
            for exchange in (1, 2):
                of = ((LINE_ITEM, line), (CAMPAIGN, campaign), (ADVERTISER, advertiser), (CREATIVE, ads[line]))
                refs = [*of, *((PAIRED[kind], pair(ref, exchange)) for kind, ref in of), (EXCHANGE, exchange), (ALL, 0)]
                for kind, ref in refs:
                    for grain in GRAINS:
                        key = (kind, grain, day - day % grain, ref)
                        sums[key] = sums.get(key, 0) + impressions(line, day, exchange)
    engine = open_database(config.path("ledger.db"))
    with engine.begin() as connection:
        for line, (campaign, advertiser) in OWNERS.items():
            row = {"id": line, "campaign": campaign, "advertiser": advertiser, "currency": "USD", "name": ""}
            connection.execute(insert(LINES).values(**row, margin_ppm=0))
        rows = [
            {"kind": kind, "grain": grain, "day": day, "ref": ref, "currency": "USD", **dict.fromkeys(MEASURES, 0),
             "impressions": n, "spend_micros": n * 1000}
            for (kind, grain, day, ref), n in sums.items()
        ]  # fmt: skip
        connection.execute(insert(ROLLUP_DAYS), rows)
    engine.dispose()


def total(
    lines: tuple[int, ...], exchanges: tuple[int, ...] = (1, 2), first: int = FIRST + 10, last: int = LAST
) -> int:
    return sum(impressions(i, day, x) for i in lines for x in exchanges for day in range(first, last + 1))


def ask(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"{V}/reports", params={**SPAN, **query})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


DIMENSIONS = ("advertiser", "campaign", "line_item", "exchange", "creative")


@pytest.mark.parametrize("first", DIMENSIONS)
@pytest.mark.parametrize("second", DIMENSIONS)
@pytest.mark.parametrize("daily", ["true", "false"])
def test_any_two_dimensions_add_up_to_the_whole(owner: TestClient, first: str, second: str, daily: str) -> None:
    rows = ask(owner, by=f"{first},{second}", daily=daily)
    assert sum(r["impressions"] for r in rows) == total((1, 2, 3, 4))
    keys = [(r["day"], r["id"], r["second_id"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert all(r["name"] for r in rows)


def test_a_line_item_stands_beside_its_campaign_or_exchange(owner: TestClient) -> None:
    rows = ask(owner, by="campaign,line_item")
    assert {(r["name"], r["second_id"]) for r in rows} == {("Spring", 1), ("Spring", 2), ("Autumn", 3), ("Autumn", 4)}
    rows = ask(owner, by="line_item,exchange", id=3)
    assert [(r["id"], r["second"], r["impressions"]) for r in rows] == [
        (3, "alpha", total((3,), (1,))),
        (3, "beta", total((3,), (2,))),
    ]


def test_rows_are_compared_with_as_many_days_before(owner: TestClient) -> None:
    (row,) = ask(owner, by="line_item", id=2, compare="true")
    assert row["before"]["impressions"] == total((2,), first=FIRST, last=FIRST + 9)
    daily = ask(owner, by="exchange", id=1, daily="true", compare="true")
    assert [r["before"]["impressions"] for r in daily] == [
        sum(impressions(i, day, 1) for i in OWNERS) for day in range(FIRST, FIRST + 10)
    ]
    assert ask(owner, by="line_item")[0]["before"] is None


@pytest.mark.parametrize("by", ["", "advertiser", "exchange", "creative", "line_item,exchange", "campaign,creative"])
def test_an_analyst_sees_and_exports_their_own_advertiser_alone(sign_in: Callable[..., TestClient], by: str) -> None:
    client = sign_in("analyst", 2)
    assert sum(r["impressions"] for r in ask(client, by=by)) == total((3, 4))
    assert ask(client, by=by, advertiser_id=1) == []
    job = finished(client, {"by": by, **SPAN}, "csv")
    rows = list(csv.DictReader(io.StringIO(client.get(f"{V}/report-jobs/{job['id']}/file").text)))
    assert sum(int(r["impressions"]) for r in rows) == total((3, 4))


def finished(client: TestClient, report: dict[str, Any], kind: str) -> dict[str, Any]:
    answer = client.post(f"{V}/report-jobs", json={"report": report, "format": kind})
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 20
    while True:
        job: dict[str, Any] = client.get(f"{V}/report-jobs/{answer.json()['id']}").json()
        if job["state"] in ("done", "failed"):
            assert job["state"] == "done"
            return job
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("daily", [False, True])
def test_a_whole_report_is_written_with_progress(owner: TestClient, daily: bool) -> None:
    spec = {"by": "campaign,exchange", "daily": daily, "compare": True, "measures": "impressions,spend_micros", **SPAN}
    job = finished(owner, spec, "parquet")
    assert (job["progress"], job["rows"]) == (1_000_000, 4 * (10 if daily else 1))
    table = pq.read_table(io.BytesIO(owner.get(f"{V}/report-jobs/{job['id']}/file").content))
    assert table.column_names[:6] == ["day", "id", "name", "second_id", "second", "currency"]
    assert table.column_names[6:] == ["impressions", "before_impressions", "spend_micros", "before_spend_micros"]
    assert sum(table["impressions"].to_pylist()) == total((1, 2, 3, 4))
    assert sum(table["before_spend_micros"].to_pylist()) == 1000 * total((1, 2, 3, 4), first=FIRST, last=FIRST + 9)


def test_a_page_of_a_report_is_a_parquet_file_too(owner: TestClient) -> None:
    answer = owner.get(f"{V}/reports.parquet", params={**SPAN, "by": "line_item", "daily": "true"})
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.num_rows == 40
    assert table["day"].to_pylist()[0].isoformat() == SPAN["start"]


def test_a_file_is_for_who_asked_for_it_while_they_may_see_it(
    sign_in: Callable[..., TestClient], services: Services
) -> None:
    analyst, other = sign_in("analyst", 2), sign_in("owner")
    job = finished(analyst, {"by": "line_item", **SPAN}, "csv")
    for path in (f"{V}/report-jobs/{job['id']}", f"{V}/report-jobs/{job['id']}/file", f"/reports/jobs/{job['id']}"):
        assert analyst.get(path).status_code == 200
        assert other.get(path).status_code == 404
    user = next(u for u in other.get(f"{V}/users").json()["items"] if u["email"].startswith("analyst"))
    other.patch(f"{V}/users/{user['id']}", json={"roles": {"1": "analyst"}}, headers={"if-match": "*"})
    assert analyst.get(f"{V}/report-jobs/{job['id']}/file").status_code == 404


def test_one_person_has_so_many_reports_written_at_a_time(services: Services, owner: TestClient) -> None:
    services.exports._pool.shutdown()
    services.exports._pool = type("Never", (), {"submit": lambda *_: None, "shutdown": lambda *_, **__: None})()
    asked = {"report": {"by": "line_item", **SPAN}}
    answers = [owner.post(f"{V}/report-jobs", json=asked).status_code for _ in range(4)]
    assert answers == [202, 202, 202, 429]
    assert owner.get(f"{V}/report-jobs/1/file").status_code == 409


def test_a_saved_report_is_shared_by_link_within_the_readers_rights(sign_in: Callable[..., TestClient]) -> None:
    all_of, analyst, colleague, rival = sign_in(), sign_in("analyst", 2), sign_in("trader", 2), sign_in("admin", 1)
    wide = all_of.post(f"{V}/saved-reports", json={"name": "Everything", "report": {"by": "advertiser", **SPAN}}).json()
    mine = analyst.post(f"{V}/saved-reports", json={"name": "=Ours", "report": {"by": "line_item", **SPAN}}).json()
    assert mine["report"]["advertiser_id"] == 2
    shared = colleague.get(f"/reports/saved/{mine['id']}")
    assert shared.status_code == 200
    assert "=Ours" in shared.text
    for client, ref in ((rival, mine["id"]), (rival, wide["id"]), (analyst, wide["id"])):
        assert client.get(f"{V}/saved-reports/{ref}").status_code == 404
        assert client.get(f"/reports/saved/{ref}").status_code == 404
        assert client.post(f"{V}/saved-reports/{ref}/remove").status_code == 404
    assert "=Ours" not in rival.get("/reports").text
    theirs = rival.post(f"{V}/saved-reports", json={"name": "x", "report": {"advertiser_id": 2, **SPAN}})
    assert theirs.status_code == 403
    assert colleague.post(f"{V}/saved-reports/{mine['id']}/remove").status_code == 403
    assert analyst.post(f"{V}/saved-reports/{mine['id']}/remove").status_code == 200
    assert analyst.get(f"{V}/saved-reports").json()["items"] == []


def test_who_may_not_report_gets_no_report(sign_in: Callable[..., TestClient]) -> None:
    reviewer = sign_in("reviewer", 1)
    for path in ("/reports", "/reports.csv", "/reports.parquet", "/saved-reports", "/report-jobs/1"):
        assert reviewer.get(V + path).status_code == 403
    assert reviewer.post(f"{V}/report-jobs", json={"report": {}}).status_code == 403
    assert reviewer.post(f"{V}/saved-reports", json={"name": "x", "report": {}}).status_code == 403


def test_the_page_compares_pages_saves_and_writes_files(owner: TestClient) -> None:
    text = owner.get("/reports", params={**SPAN, "by": "line_item", "then": "exchange", "compare": "true"}).text
    assert "alpha" in text
    assert "+" in text
    spec = msgspec.json.encode({"by": "line_item", **SPAN}).decode()
    token = {"csrf": owner.headers["x-csrf-token"], "report": spec}
    hostile = "<script>alert(1)</script>"
    saved = owner.post("/reports/save", data={**token, "name": hostile})
    assert saved.status_code == 200
    assert "<script>alert" not in saved.text
    assert "&lt;script&gt;alert" in saved.text
    assert "by=line_item&start=2024-10-14" in str(owner.get("/reports/saved/1").url)
    job = owner.post("/reports/jobs", data={**token, "format": "csv"})
    assert job.status_code == 200
    assert "progress" in job.text
    assert owner.post("/reports/saved/1/remove", data=token).status_code == 200
    for path in ("/reports/save", "/reports/jobs", "/reports/saved/1/remove"):
        assert owner.post(path, data={**token, "csrf": "forged", "name": "x"}).status_code == 403
    assert owner.post("/reports/save", data={**token, "name": ""}).status_code == 422
    assert owner.post("/reports/save", data={**token, "name": "x", "report": "{"}).status_code == 400
    assert owner.get("/reports", params={"by": "lender"}).status_code == 400


def test_a_repeated_post_keeps_one_report_and_writes_one(owner: TestClient) -> None:
    for path, body in (
        ("/api/v1/saved-reports", {"name": "Weekly", "report": {}}),
        ("/api/v1/report-jobs", {"report": {}, "format": "csv"}),
    ):
        answers = [owner.post(path, json=body, headers={"idempotency-key": path}) for _ in range(2)]
        assert [a.status_code for a in answers] in ([201, 201], [202, 202]), answers[0].text
        assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_report_is_begun_while_another_is_written(owner: TestClient, services: Services) -> None:
    for _ in range(15):
        answers = [owner.post("/api/v1/report-jobs", json={"report": {}, "format": "csv"}) for _ in range(3)]
        assert {a.status_code for a in answers} <= {202, 429}, [a.text for a in answers]
        services.exports._pool.submit(lambda: None).result()
