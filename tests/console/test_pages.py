"""The pages without a browser: every word in two languages, hostile text inert, forms guarded; signing in by link."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import dsp.console
from dsp.console.pages.editor import FIELDS
from dsp.console.pages.page import DONE, FUNNEL, NAV
from dsp.console.services import Services
from dsp.console.words import ZH
from dsp.ledger.schema import MEASURES

PAGES = (
    *("/", "/campaigns", "/campaigns/1", "/campaigns/new", "/campaigns/1/new-line-item"),
    *("/line-items", "/line-items/1", "/reports", "/changes"),
)
CONSOLE = Path(dsp.console.__file__).parent
_IN_TEMPLATES = (
    r"""\b_\((?:"([^"]+)"|'([^']+)')""", r"""\b_\(["'][^"')]+["'] if [^)]*? else ["']([^"')]+)""",
    r'parts\.sorted\(_, query, link, "[a-z]+", "([^"]+)"', r'parts\.region\(_, "([^"]+)"',
    r'parts\.field\(_, wrong, "[a-z_]+", "([^"]+)"(?:, [^,]+, "([^"]*)")?',
)  # fmt: skip


def _translates(function: ast.expr) -> bool:
    return getattr(function, "id", "") == "_" or getattr(function, "attr", "") == "words"


def said() -> set[str]:
    """What templates and handlers translate, as far as it is written there."""
    used: set[str] = set()
    for file in (CONSOLE / "templates").glob("*.html"):
        for pattern in _IN_TEMPLATES:
            for found in re.findall(pattern, file.read_text()):
                used |= {found} if isinstance(found, str) else set(found)
    for file in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _translates(node.func):
                inside = (x for a in node.args for x in ast.walk(a) if isinstance(x, ast.Constant))
                used |= {x.value for x in inside if isinstance(x.value, str)}
    used |= {name for _, name in FUNNEL} | set(DONE.values()) | {m.removesuffix("_micros") for m in MEASURES}
    used |= {text for group, links in NAV for text in (group, *(link[1] for link in links))}
    used |= {text for fields in FIELDS.values() for f in fields for text in (f[1], f[3])}
    return used - {""}


def test_every_word_of_a_page_has_its_chinese() -> None:
    assert said() - set(ZH) == set()


@pytest.mark.parametrize("path", PAGES)
def test_pages_open_in_both_languages_and_only_for_who_is_signed_in(
    owner: TestClient, anyone: TestClient, path: str
) -> None:
    english, chinese = (owner.get(path, params={"lang": lang}) for lang in ("en", "zh"))
    assert english.status_code == chinese.status_code == 200, english.text
    assert '<html lang="zh-CN">' in chinese.text
    assert "概览" in chinese.text
    assert "概览" not in english.text
    away = anyone.get(path)
    assert away.status_code == 303
    assert away.headers["location"] == "/sign-in"


def test_a_link_leads_to_the_owners_first_page(anyone: TestClient, services: Services) -> None:
    token = services.accounts.make_link()
    assert "you become its owner" in anyone.get("/enter", params={"token": token}).text
    form = {"token": token, "email": "me@bank.example", "password": "too short"}
    assert anyone.post("/enter", data=form).status_code == 422
    entered = anyone.post("/enter", data={**form, "password": "long enough by far"})
    assert entered.status_code == 303
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert anyone.get("/").status_code == 200
    assert "used or is too old" in anyone.get("/enter", params={"token": token}).text


def test_hostile_names_are_shown_as_text(owner: TestClient) -> None:
    name = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    made = owner.post("/api/v1/campaigns", json={"advertiser_id": 1, "name": name, "budget": {"total": 5}})
    assert made.status_code == 201
    for path in ("/", "/campaigns", f"/campaigns/{made.json()['id']}", "/changes", f"/campaigns?q={name}"):
        text = owner.get(path).text
        assert "<script>alert" not in text
        assert "<img" not in text


@pytest.mark.parametrize("path", ["/campaigns/1", "/campaigns/1/pause", "/campaigns/new", "/line-items/1", "/sign-out"])
def test_a_form_without_the_token_is_refused(owner: TestClient, path: str) -> None:
    answer = owner.post(path, data={"name": "x", "csrf": "forged"})
    assert answer.status_code == 403
    assert owner.get("/api/v1/campaigns/1").json()["status"] == "active"


def test_a_refused_form_comes_back_as_typed(owner: TestClient) -> None:
    token = {"csrf": owner.headers["x-csrf-token"]}
    form = {**token, "advertiser_id": "1", "name": "Typed", "total": "5", "daily": "50"}
    answer = owner.post("/campaigns/new", data=form)
    assert answer.status_code == 422
    assert 'value="Typed"' in answer.text
    assert re.search(r'name="daily"[^>]* value="50"[^>]* aria-invalid="true"', answer.text)
    stale = owner.post("/campaigns/1", data={**token, "etag": '"old"', "name": "Spring", "total": "7"})
    assert stale.status_code == 412


def test_who_may_only_read_sees_no_buttons(sign_in: Callable[..., TestClient]) -> None:
    client = sign_in("analyst", 1)
    text = client.get("/campaigns").text
    assert "Spring" in text
    assert "Autumn" not in text
    assert "/pause" not in text
    assert client.get("/campaigns/2").status_code == 404
