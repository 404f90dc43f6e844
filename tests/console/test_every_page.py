"""Of every page: what isn't there answers 404, and the Chinese one has no English left."""

from __future__ import annotations

import html
import re

import pytest
from catalog_file import GOOD
from every_page import ERRORS, REFUSED, addresses, bare, refused, templates
from starlette.testclient import TestClient

from dsp.console import pages
from dsp.console.services import Services

# Words that are the same in every language: names of things in the trade, file formats, and what people have named.
SAME = {
    *("dsp CPM eCPM QPS UTC USD EUR CTR TOTP QR API OpenAPI OpenRTB IAB FCRA ECOA English kB kbit flex").split(),
    *("iOS macOS Windows Linux Chrome Safari Edge").split(),
    *("CSV Parquet JSON VAST HTML URL GIF JPEG WebP").split(),
    *("bid_id bid id date impressions amount").split(),  # the columns of a bill
}


def visible(text: str) -> str:
    """What a reader sees or hears of a page."""
    text = re.sub(r"<(script|style|code|textarea|pre)\b.*?</\1>|<!--.*?-->", " ", text, flags=re.DOTALL)
    spoken = re.findall(r"""\s(?:aria-label|title|placeholder|alt)=(?:"([^"]*)"|'([^']*)')""", text)
    return html.unescape(" ".join(a or b for a, b in spoken) + " " + re.sub(r"<[^>]*>", " ", text))


def english(text: str, names: set[str]) -> set[str]:
    """Its English words, but for names."""
    text = re.sub(r"\S+@\S+|https?://\S+|\b[\w-]+\.example\b|`[^`]*`|'[^' ]*'|[A-Z2-7]{32}|dsp_\S+", " ", visible(text))
    return {w for w in re.findall(r"[A-Za-z][A-Za-z']+", text) if w not in SAME and w.lower() not in names}


@pytest.fixture
def names() -> set[str]:
    """What the catalog's people have called things."""
    typed = "Rival Autumn Weekly script nothing-like-it Skip Lift held out locked new setup csv parquet a b"
    return {w.lower() for w in re.findall(r"[A-Za-z]+", GOOD + typed)}


def test_every_page_opens_with_something_to_show_and_without(full: TestClient, empty: TestClient) -> None:
    assert len(addresses()) > 30
    assert {a.partition("?")[0] for a in bare()} <= set(templates())
    for path in addresses():
        assert full.get(path).status_code == 200, path
    for path in bare():
        assert empty.get(path).status_code == 200, path


def test_what_is_not_there_answers_404_at_every_address_with_an_id(owner: TestClient, services: Services) -> None:
    form = {"csrf": owner.headers["x-csrf-token"]}
    seen = 0
    for route in pages.routes(services):
        for method in sorted((route.methods or set()) - {"HEAD"}):
            for ref in ("999", str(2**63), "1" + "0" * 30):
                path = route.path.replace("{id:int}", ref).replace("{name}", f"{ref}.png")
                if path != route.path:
                    answer = owner.request(method, path, data=form if method == "POST" else None)
                    assert answer.status_code == 404, (method, path, answer.status_code)
                    seen += 1
    assert seen > 80


def test_a_page_that_went_wrong_says_so_with_its_status(full: TestClient) -> None:
    for path, status in ERRORS:
        answer = full.get(path, headers={"accept": "text/html"})
        assert answer.status_code == status, path
        assert 'role="alert"' in answer.text, path


def test_no_page_in_chinese_has_english_left(full: TestClient, empty: TestClient, names: set[str]) -> None:
    left: dict[str, set[str]] = {}
    for client, paths in ((full, addresses()), (empty, bare()), (full, [path for path, _ in ERRORS])):
        for path in paths:
            text = client.get(path, params={"lang": "zh"} if "?" not in path else None, headers={"accept": "text/html"})
            assert 'lang="zh-CN"' in text.text, path
            left[path] = left.get(path, set()) | english(text.text, names)
    for path, form in REFUSED:
        left[f"POST {path}"] = english(refused(full, path, form, "zh"), names)
    assert {path: words for path, words in left.items() if words} == {}


def test_english_that_was_left_would_be_found() -> None:
    assert english('<p>预算 budget</p><a title="Go there">去</a><code>dsp top</code>', set()) == {
        "budget",
        "Go",
        "there",
    }


def test_no_address_breaks_a_page(full: TestClient) -> None:
    values = ("", "-1", "9" * 30, "1e9", "nan", "a\x00b", "' or 1=1 --", "é" * 300, "/../x", "true", "2026-99-99")
    names = (
        *("q", "offset", "limit", "after", "before", "sort", "desc", "status", "campaign_id", "advertiser_id", "kind"),
        *("ref", "by", "then", "start", "end", "measures", "id", "compare", "daily", "look", "format", "lang", "done"),
        *("token", "line_item_id", "next"),
    )
    for path in {a.partition("?")[0] for a in (*addresses(), "/creatives/1/preview")}:
        for i, name in enumerate(names):
            for value in (values[i % len(values)], "9" * 30):
                status = full.get(path, params={name: value}, headers={"accept": "text/html"}).status_code
                assert status < 500, (path, name, value, status)
