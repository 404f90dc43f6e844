"""Every page there is, from the table of routes itself: a route without an example here makes the tests fail.

`furnish` brings about what pages can show: money and changes, a report being kept and one written, an approval that
waits, a key, a user. The same addresses without ids are also looked at in a console that has nothing yet.
"""

from __future__ import annotations

import json
from typing import Any

from console_names import OWNER, PASSWORD
from experiment_log import ARMS, log
from sqlalchemy import insert
from starlette.testclient import TestClient

from dsp.catalog.meta import experiment_id
from dsp.catalog.publish import publish_if_changed
from dsp.catalog.types import Experiment
from dsp.console import browse, pages
from dsp.console.services import Services
from dsp.ledger.accounts import CAMPAIGN, LINE_ITEM
from dsp.ledger.database import open_database
from dsp.ledger.rollups import ALL, GRAINS
from dsp.ledger.schema import MEASURES, ROLLUP_DAYS

# What is no page: files, and the inside of an ad's frame, which is the advertiser's.
NO_PAGES = {
    *("/static/console.css", "/static/console.js", "/images/{name}", "/reports/jobs/{id}/file"),
    *("/creatives/{id}/preview", "/reports/saved/{id}"),  # the latter leads to /reports
}
LIFT = experiment_id(1, Experiment("Lift", ()))
PARTS = ("/line-items/1/reach", f"/experiments/{LIFT}/results")  # put in place within a page
EXAMPLES: dict[str, tuple[str, ...]] = {
    "/": ("/", "/?done=saved"),
    "/enter": ("/enter", "/enter?token=made-up"),
    "/campaigns": ("/campaigns", "/campaigns?q=nothing-like-it", "/campaigns?sort=spend"),
    "/campaigns/{id}": ("/campaigns/1", "/campaigns/2", "/campaigns/3"),  # in review, live, a draft
    "/campaigns/{id}/new-line-item": ("/campaigns/1/new-line-item",),
    "/line-items": ("/line-items", "/line-items?q=nothing-like-it"),
    "/line-items/{id}": ("/line-items/1", "/line-items/2"),
    "/line-items/{id}/why": ("/line-items/1/why", "/line-items/2/why"),
    "/line-items/{id}/reach": PARTS[:1],
    "/experiments": ("/experiments", "/experiments?q=nothing-like-it", "/experiments?limit=1"),
    "/experiments/{id}": (f"/experiments/{LIFT}",),
    "/experiments/{id}/results": PARTS[1:],
    "/line-items/{id}/new-creative": tuple(
        f"/line-items/1/new-creative{query}" for query in ("", "?format=native", "?format=video", "?format=audio")
    ),
    "/creatives/{id}": ("/creatives/1", "/creatives/2"),
    "/exchanges/{id}/bill": ("/exchanges/1/bill",),
    "/reports": (
        *("/reports", "/reports?by=campaign,exchange&daily=true&compare=true"),
        *("/reports?by=line_item&measures=impressions,clicks", "/reports?start=2020-01-01&end=2020-01-02"),
    ),
    "/reports/jobs/{id}": ("/reports/jobs/1", "/reports/jobs/2"),
}
ERRORS = (  # address, status
    ("/nowhere", 404), ("/campaigns/999", 404), ("/campaigns?sort=colour", 400), ("/reports?start=yesterday", 400),
    ("/reports/jobs/999", 404), ("/line-items/999/why", 404),
)  # fmt: skip
REFUSED: tuple[tuple[str, dict[str, Any]], ...] = (  # forms that come back
    ("/campaigns/new", {"advertiser_id": "1", "name": "", "total": "5", "daily": "50", "start": "soon"}),
    ("/campaigns/1", {"name": "", "total": "x"}),
    ("/campaigns/1/new-line-item", {"name": "", "max_bid_cpm": "-1"}),
    ("/line-items/1", {"name": "", "max_bid_cpm": "free"}),
    ("/line-items/1/new-creative", {"format": "banner", "name": "", "sizes": "huge"}),
    ("/exchanges/1/bill", {"bill": "date,amount\nyesterday,1"}),
    ("/campaigns/bulk", {"action": "pause"}),
    ("/users", {"email": "nobody", "role": "trader", "password": "short"}),
    ("/keys", {"name": ""}),
    ("/security", {"secret": "A" * 32, "code": "1"}),
    ("/reports/save", {"name": ""}),
    ("/sign-in", {"email": "a@b.example", "password": "wrong"}),
    ("/enter", {"token": "made-up"}),
)


def templates() -> list[str]:
    """Every GET route, ids as {id}."""
    found = [r.path.replace(":int", "") for r in pages.routes(None) if "GET" in (r.methods or ())]  # type: ignore[arg-type]
    return list(dict.fromkeys(found))


def addresses() -> list[str]:
    """Examples of every page; fails where a route has none."""
    found: list[str] = []
    for template in templates():
        if template in NO_PAGES:
            continue
        assert template in EXAMPLES or "{" not in template, f"{template}: add an example to EXAMPLES in every_page.py"
        found += EXAMPLES.get(template, (template,))
    return found


def bare() -> list[str]:
    """The pages that need nothing to be there."""
    return [t for t in templates() if "{" not in t and t not in NO_PAGES]


def refused(client: TestClient, path: str, form: dict[str, Any], lang: str) -> str:
    """The page with which a form comes back."""
    answer = client.post(f"{path}?lang={lang}", data={"csrf": client.headers["x-csrf-token"], **form})
    assert 400 <= answer.status_code < 500, (path, answer.status_code)
    return answer.text


def furnish(services: Services, owner: TestClient, trader: TestClient) -> None:
    """What a console holds after some weeks."""
    today = browse.today()
    amounts = dict.fromkeys(MEASURES, 3) | {"spend_micros": 7_250_000, "impressions": 1234, "clicks": 56}
    books = open_database(services.config.path("ledger.db"))
    with books.begin() as connection:
        for kind, ref in ((CAMPAIGN, 1), (LINE_ITEM, 1), (ALL, 0)):
            for grain in GRAINS:
                for day in sorted({d - d % grain for d in range(today - 9, today + 1)}):
                    key: dict[str, Any] = {"kind": kind, "grain": grain, "day": day, "ref": ref}
                    connection.execute(insert(ROLLUP_DAYS).values(**key, currency="USD", **amounts))
    books.dispose()
    token = {"csrf": owner.headers["x-csrf-token"]}

    def post(path: str, form: dict[str, Any], client: TestClient = owner) -> None:
        answer = client.post(path, data={**form, "csrf": client.headers["x-csrf-token"]})
        assert answer.status_code == 200, (path, answer.text)

    report = json.dumps({"by": "campaign", "start": "2026-01-01", "end": "2026-02-01"})
    post("/reports/save", {"name": "Weekly", "report": report})
    for format_ in ("csv", "parquet"):
        post("/reports/jobs", {"report": report, "format": format_})
    post("/keys", {**token, "name": "script", "scopes": ["read", "report"]})
    post("/users", {"email": "new@bank.example", "role": "analyst", "advertiser_id": "1", "password": PASSWORD})
    post("/campaigns/1/duplicate", {})
    for path, body in (
        ("campaigns/2", {"budget": {"total": 900, "daily": None}, "flight": {"end": "2026-04-30"}}),
        ("line-items/1", {"pacing": "front", "max_bid_cpm": 3, "deals": []}),
        ("line-items/1", {"name": "Loans", "frequency": [{"cap": 3, "per": "day"}]}),
        ("users/3", {"disabled": True}),
    ):
        changed = owner.patch(f"/api/v1/{path}", json=body, headers={"if-match": "*"})
        assert changed.status_code == 200, changed.text
    post("/campaigns/1/pause", {}, trader)
    for body in (
        {"campaign_id": 1, "name": "Lift", "arms": ARMS},
        {
            "campaign_id": 2,
            "name": "Skip",
            "arms": [{"name": "a", "share": 0.5, "bid": 2}, {"name": "b", "share": 0.1}],
        },
    ):
        assert owner.post("/api/v1/experiments", json=body).status_code == 201
    publish_if_changed(services.config)
    log(services.config, LIFT)
    services.catalog.approval_above = 500.0
    post("/campaigns/1/resume", {}, trader)
    services.accounts.add_user(OWNER, "locked@bank.example", PASSWORD, {1: "reviewer"})
