"""The pages without a browser: every word in two languages, hostile text inert, forms guarded; signing in by link."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyotp
import pytest
from starlette.testclient import TestClient

import dsp.console
from dsp.console import library, words
from dsp.console.access import ROLES, SCOPES
from dsp.console.catalog import TABLES
from dsp.console.pages import creatives, show, why
from dsp.console.pages.editor import FIELDS
from dsp.console.pages.page import DONE, FUNNEL, NAV
from dsp.console.services import Services
from dsp.console.words import ZH, ZH_ERRORS, refusal
from dsp.ledger.schema import MEASURES
from dsp.openrtb import codes

PAGES = (
    *("/", "/campaigns", "/campaigns/1", "/campaigns/new", "/campaigns/1/new-line-item"),
    *(
        "/line-items",
        "/line-items/1",
        "/line-items/1/why",
        "/exchanges",
        "/exchanges/1/bill",
        "/creatives",
        "/creatives/1",
        "/line-items/1/new-creative",
        "/audiences",
        "/guide",
        "/reports",
        "/changes",
        "/users",
        "/keys",
        "/security",
    ),
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
    used |= set(why.REMEDIES.values()) | {codes.NBR_TEXT[code] for code in why.REMEDIES}
    used |= {name for _, name in FUNNEL} | set(DONE.values()) | {m.removesuffix("_micros") for m in MEASURES}
    used |= {text for group, links in NAV for text in (group, *(link[1] for link in links))}
    used |= set(show.FIELDS.values())
    used |= {text for fields in FIELDS.values() for f in fields for text in (f[1], f[3])}
    used |= {text for fields in creatives.FORM.values() for _, *texts in fields for text in texts}
    used |= {text for several in creatives.UPLOADS.values() for *_, text in several} | set(creatives.FORMATS.values())
    return used - {""}


def test_every_word_of_a_page_has_its_chinese() -> None:
    assert said() - set(ZH) == set()


def _texts(node: ast.expr, constants: dict[str, set[str]]) -> set[str]:
    """The literals that an argument may be, what is filled in as {}."""
    if isinstance(node, ast.IfExp):
        return _texts(node.body, constants) | _texts(node.orelse, constants)
    if isinstance(node, ast.Name):
        return constants.get(node.id, set())
    if isinstance(node, ast.JoinedStr):
        found = {"".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)}
        holes = (v.value for v in node.values if isinstance(v, ast.FormattedValue))
        return found.union(*(_texts(hole, {}) for hole in holes if isinstance(hole, ast.IfExp)))
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def refusals() -> set[str]:
    """What the console and the checks behind it refuse with, as their source says it."""
    dsp_ = CONSOLE.parent
    files = [*CONSOLE.rglob("*.py"), *(dsp_ / "catalog").glob("check*.py"), dsp_ / "ledger" / "reconcile.py"]
    used: set[str] = set()
    for file in [*files, dsp_ / "catalog" / "times.py", dsp_ / "catalog" / "profile.py"]:
        tree = ast.parse(file.read_text())
        constants: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                constants.setdefault(node.targets[0].id, set()).update(_texts(node.value, {}))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
                at = _SAYS.get(name, len(node.args))
                used |= _texts(node.args[at], constants) if at < len(node.args) else set()
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Tuple):
                used |= _texts(node.elts[1], {})  # of `problems`: the path and what is wrong
    return used


_SAYS = {  # who says what is wrong, and in which argument
    **{"ApiError": 2, "invalid": 1, "FieldError": 1, "say": 1, "pattern": 3, "one_of": 1, "_one_of": 1},
    **{"ValueError": 0, "BillError": 0, "CatalogError": 0, "not_found": 0},
}


def test_every_refusal_has_its_chinese() -> None:
    said_elsewhere = {"{}: {}", "audit row {} does not follow from the one before: the log was tampered with"}
    used = refusals() | {*ROLES, *SCOPES, "approve", *(kind.replace("_", " ") for kind in (*TABLES, *library.TABLES))}
    assert len(used) > 150  # or this looks in the wrong places
    assert used - said_elsewhere - set(ZH_ERRORS) - set(ZH) == set()


def test_templates_say_nothing_that_is_not_translated() -> None:
    code = re.compile(
        r"\{% macro region.*?endmacro %\}|\{%.*?%\}|\{\{.*?\}\}|<!.*?>|<(script|svg|code)\b.*?</\1>", re.DOTALL
    )
    spoken = re.compile(r"""(?:aria-label|title|placeholder|alt)=(?:"([^"]*)"|'([^']*)')""")
    bare: set[str] = set()
    for file in (CONSOLE / "templates").glob("*.html"):
        text = code.sub(" ", file.read_text())
        said = " ".join(a or b for a, b in spoken.findall(text)) + re.sub(r"<[^>]*>", " ", text)
        bare |= set(re.findall(r"[A-Za-z]{2,}", said))
    assert bare <= {"dsp", "CPM", "QPS", "UTC", "CSV", "Parquet", "JSON", "OpenAPI"}


def test_a_refusal_is_told_in_the_readers_language(owner: TestClient) -> None:
    form = {"csrf": owner.headers["x-csrf-token"], "advertiser_id": "1", "name": "Typed", "total": "5", "daily": "50"}
    refused = owner.post("/campaigns/new?lang=zh", data=form).text
    assert "超过了" in refused
    assert "is more than" not in refused
    assert refusal("no one has translated this") == "no one has translated this"


def test_what_went_wrong_is_told_in_the_readers_language_and_form(owner: TestClient) -> None:
    nowhere = owner.get("/nowhere", headers={"accept": "text/html", "accept-language": "zh-CN"})
    assert nowhere.status_code == 404
    assert "没有这个页面" in nowhere.text
    assert '<html lang="zh-CN">' in nowhere.text
    assert owner.get("/nowhere").json()["error"]["message"] == "Not Found"
    refused = owner.post("/api/v1/images", json={"data": "bm8="}, headers={"accept-language": "zh-CN"})
    assert "图片" in refused.json()["error"]["message"]
    bill = {"csrf": owner.headers["x-csrf-token"], "bill": "date,amount\nyesterday,1"}
    assert "第 2 行：" in owner.post("/exchanges/1/bill?lang=zh", data=bill).text
    owner.cookies.delete("dsp_language")
    assert "line 2: " in owner.post("/exchanges/1/bill", data=bill).text


def test_what_is_ticked_is_changed_all_or_not_at_all(owner: TestClient) -> None:
    form = {"csrf": owner.headers["x-csrf-token"], "id": ["1", "2"]}
    one = owner.get("/api/v1/campaigns/1").json()
    assert owner.post("/campaigns/bulk?sort=name", data={**form, "action": "pause"}).status_code == 200  # the list
    assert [owner.get(f"/api/v1/campaigns/{i}").json()["status"] for i in (1, 2)] == ["paused", "paused"]
    owner.post("/campaigns/bulk", data={**form, "id": ["1"], "action": "daily", "budget": "-20%"})
    less = owner.get("/api/v1/campaigns/1").json()["budget"]["daily"]
    assert float(less) == pytest.approx(0.8 * float(one["budget"]["daily"]))
    before = [owner.get(f"/api/v1/campaigns/{i}").json() for i in (1, 2)]
    assert owner.post("/campaigns/bulk", data={**form, "action": "total", "budget": "0.01"}).status_code == 422
    assert [owner.get(f"/api/v1/campaigns/{i}").json() for i in (1, 2)] == before
    assert owner.post("/campaigns/bulk", data={"csrf": form["csrf"], "action": "pause"}).status_code == 422


def test_a_duplicate_is_paused_and_has_the_line_items(owner: TestClient) -> None:
    form = {"csrf": owner.headers["x-csrf-token"]}
    page = owner.post("/campaigns/1/duplicate", data=form)
    ref = int(str(page.url).rsplit("/", 1)[1].partition("?")[0])
    made, old = (owner.get(f"/api/v1/campaigns/{i}").json() for i in (ref, 1))
    assert made["name"] == old["name"] + " (2)"
    assert made["status"] == "paused"
    assert made["budget"] == old["budget"]
    children, theirs = (owner.get("/api/v1/line-items", params={"campaign_id": i}).json()["items"] for i in (1, ref))
    assert [c["name"] for c in children] == [c["name"] for c in theirs]
    assert {c["status"] for c in theirs} == {"paused"}


def test_a_key_is_shown_once_and_a_user_made_here_can_sign_in(owner: TestClient, anyone: TestClient) -> None:
    token = {"csrf": owner.headers["x-csrf-token"]}
    made = owner.post("/keys", data={**token, "name": "script", "scopes": ["read", "report"]}).text
    secret = re.search(r'class="secret">(dsp_[^<]+)<', made)
    assert secret is not None
    assert anyone.get("/api/v1/me", headers={"authorization": f"Bearer {secret.group(1)}"}).status_code == 200
    assert secret.group(1) not in owner.get("/keys").text
    owner.post("/keys/1/revoke", data=token)
    assert anyone.get("/api/v1/me", headers={"authorization": f"Bearer {secret.group(1)}"}).status_code == 401
    form = {**token, "email": "new@bank.example", "role": "trader", "advertiser_id": "1", "password": "short"}
    assert owner.post("/users", data=form).status_code == 422
    assert owner.post("/users", data={**form, "password": "long enough by far"}).status_code == 200
    entered = anyone.post("/sign-in", data={"email": "new@bank.example", "password": "long enough by far"})
    assert entered.status_code == 303
    assert anyone.get("/users").status_code == 403


def test_a_one_time_code_is_asked_for_once_it_was_typed(owner: TestClient, clock: Callable[[], float]) -> None:
    token = {"csrf": owner.headers["x-csrf-token"]}
    secret = re.findall(r'name="secret" value="([A-Z2-7]+)"', owner.get("/security").text)[0]
    assert owner.post("/security", data={**token, "secret": secret, "code": "000000x"}).status_code == 422
    code = pyotp.TOTP(secret).at(int(clock()))
    assert "ask for a code" in owner.post("/security", data={**token, "secret": secret, "code": code}).text


@pytest.mark.parametrize("path", PAGES)
def test_pages_open_in_both_languages_and_only_for_who_is_signed_in(
    owner: TestClient, anyone: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: set[str] = set()

    class Noting(dict[str, str]):
        """Tells of what is asked of it in vain: words that no source spells out where they are translated."""

        def get(self, text: str, default: Any = None) -> Any:
            if text and text not in self:
                missing.add(text)
            return super().get(text, default)

    monkeypatch.setattr(words, "ZH", Noting(ZH))
    english, chinese = (owner.get(path, params={"lang": lang}) for lang in ("en", "zh"))
    assert missing == set()
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
