"""Ads and audiences in the console: pictures are what they say, previews can do nothing, sizes are estimated."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from dsp.audience.profile import PROFILE
from dsp.audience.survey import _count
from dsp.console.app import build
from dsp.console.edge import COOKIE, MOST_BYTES
from dsp.console.services import Services

V = "/api/v1"
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    + (300).to_bytes(4, "big")
    + (250).to_bytes(4, "big")
    + b"\x08\x02\x00\x00\x00"
)
GIF = b"GIF89a" + (728).to_bytes(2, "little") + (90).to_bytes(2, "little") + b"\x00\x00\x00"
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\xfa\x01\x2c\x01\x01\x11\x00"
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x2b\x01\x00\xf9\x00\x00"


@pytest.fixture
def uploading(services: Services, owner: TestClient) -> TestClient:
    """A console whose pictures are public somewhere."""
    console = msgspec.structs.replace(services.config.console, images_url="https://ads.example/images")
    services = Services(**{**vars(services), "config": msgspec.structs.replace(services.config, console=console)})
    client = TestClient(build(services), headers={"x-csrf-token": owner.headers["x-csrf-token"]})
    client.cookies.set(COOKIE, owner.cookies[COOKIE])
    return client


def upload(client: TestClient, data: bytes) -> tuple[int, dict[str, str]]:
    answer = client.post(f"{V}/images", json={"data": base64.b64encode(data).decode()})
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("data", "size", "kind"),
    [(PNG, "300x250", "png"), (GIF, "728x90", "gif"), (JPEG, "300x250", "jpeg"), (WEBP, "300x250", "webp")],
)
def test_a_picture_is_served_as_what_it_is(uploading: TestClient, data: bytes, size: str, kind: str) -> None:
    status, kept = upload(uploading, data)
    assert (status, kept["size"]) == (201, size)
    address = kept["url"].removeprefix("https://ads.example")
    anybody = TestClient(uploading.app)
    answer = anybody.get(address)
    assert answer.content == data
    assert answer.headers["content-type"] == f"image/{kind}"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"<html><script>", PNG[:18], b"MZ", JPEG[:4],
     PNG[:16] + (70_000).to_bytes(4, "big") + PNG[20:]],
)  # fmt: skip
def test_what_is_no_picture_is_refused(uploading: TestClient, data: bytes) -> None:
    assert upload(uploading, data)[0] == 422


def test_100_mb_are_refused_before_they_are_read(uploading: TestClient) -> None:
    sent = []

    def stream() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(1 << 20)
            yield b"x" * (1 << 20)

    for path in (f"{V}/images", "/line-items/1/new-creative"):
        declared = uploading.post(path, content=b"x" * (MOST_BYTES + 1))
        assert declared.status_code == 413
        assert uploading.post(path, content=stream()).status_code == 413


def test_without_a_public_address_an_upload_says_what_to_set(owner: TestClient) -> None:
    status, answer = upload(owner, PNG)
    assert status == 422
    assert "console.images_url" in str(answer)


@pytest.mark.parametrize("name", ["../catalog.db", "x.png", "0" * 64 + ".svg", "%2e%2e%2fledger.db", "0" * 64 + ".png"])
def test_only_pictures_are_served(anyone: TestClient, name: str) -> None:
    assert anyone.get(f"/images/{name}").status_code == 404


def test_a_banner_is_made_from_the_form(owner: TestClient) -> None:
    token = {"csrf": owner.headers["x-csrf-token"]}
    form = {**token, "name": "New", "landing": "https://bank.example/", "size": "320x50", "headline": "Save"}
    made = owner.post("/line-items/1/new-creative", data=form)
    assert made.status_code == 200
    assert "320x50" in made.text
    refused = owner.post("/line-items/1/new-creative", data={**form, "name": "Other", "size": "huge"})
    assert refused.status_code == 422
    assert 'value="huge"' in refused.text
    assert owner.post("/line-items/1/new-creative", data={**form, "csrf": "forged"}).status_code == 403


NATIVE = {
    "format": "native", "name": "Feed", "landing": "https://bank.example/", "native.title": "A loan",
    "native.desc": "Fast",
    "native.cta": "Apply", "native.sponsored": "Bank", "native.image.url": "https://bank.example/a.png",
    "native.image.size": "1200x627", "native.icon.url": "", "native.icon.size": "128x128",
}  # fmt: skip
VIDEO = {
    "format": "video", "name": "Spot", "landing": "https://bank.example/", "media": "https://bank.example/a.mp4",
    "duration_s": "15", "size": "1280x720", "bitrate_kbps": "1200", "protocol": "7", "skippable": "yes",
    "headline": "A loan",
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "kept", "seen"),
    [
        (NATIVE, {"native": {"title": "A loan", "desc": "Fast", "cta": "Apply", "sponsored": "Bank",
                             "image": {"url": "https://bank.example/a.png", "w": 1200, "h": 627}}},
         ("Sponsored by Bank", "<b>A loan</b>", "Fast", "Apply", 'src="https://bank.example/a.png"')),
        (VIDEO, {"media": "https://bank.example/a.mp4", "duration_s": 15, "size": "1280x720", "skippable": True,
                 "headline": "A loan"},
         ('<video controls playsinline src="https://bank.example/a.mp4"', "15 s", "skippable after 5 s")),
    ],
    ids=["native", "video"],
)  # fmt: skip
def test_each_format_is_made_and_seen_from_its_form(
    owner: TestClient, form: dict[str, str], kept: dict[str, object], seen: tuple[str, ...]
) -> None:
    form = {"csrf": owner.headers["x-csrf-token"], **form}
    tried = owner.post("/line-items/1/try-creative", data=form)
    assert owner.get(f"{V}/creatives", params={"q": form["name"]}).json()["items"] == []
    made = owner.post("/line-items/1/new-creative", data=form)
    assert made.status_code == 200, made.text
    ref = made.url.path.rsplit("/", 1)[1]
    spec = owner.get(f"{V}/creatives/{ref}").json()["spec"]
    assert spec == spec | {"name": form["name"], "format": form["format"], "landing": form["landing"], **kept}
    shown = owner.get(f"/creatives/{ref}/preview")
    for answer in (tried, shown):
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none';")
        assert [text for text in seen if text not in answer.text] == []


@pytest.mark.parametrize(
    ("form", "field", "value"),
    [(NATIVE, "native.title", ""), (NATIVE, "native.image.url", "not a URL"), (NATIVE, "native.image.size", "huge"),
     (NATIVE, "native.image.size", "flex"), (VIDEO, "media", ""), (VIDEO, "duration_s", "long"),
     (VIDEO, "duration_s", "0"),
     (VIDEO, "size", "huge"), (VIDEO, "protocol", "99"), (VIDEO, "bitrate_kbps", "0"), (VIDEO, "landing", "bank"),
     (NATIVE, "name", "Flex")],
)  # fmt: skip
def test_a_refused_ad_says_which_field_and_keeps_what_was_typed(
    owner: TestClient, form: dict[str, str], field: str, value: str
) -> None:
    taken = owner.get(f"{V}/line-items/1").json()["creatives"][0]["name"]
    value = taken if field == "name" else value
    refused = owner.post(
        "/line-items/1/new-creative", data={"csrf": owner.headers["x-csrf-token"], **form, field: value}
    )
    assert refused.status_code in (409, 422)
    said = refused.text.partition(f'<span class="error" id="e-{field}">')[2].partition("</span>")[0]
    assert said, f"nothing is said at {field}"
    kept = form["native.title" if form is NATIVE else "media"] if field not in ("native.title", "media") else "https://"
    assert kept in refused.text
    tried = owner.post("/line-items/1/try-creative", data={"csrf": "forged", **form})
    assert tried.status_code == 403


def test_a_preview_can_run_nothing_and_reach_nothing(owner: TestClient) -> None:
    hostile = "<script>parent.document.cookie</script><img src=x onerror=alert(1)>"
    ad = {
        "name": "Hostile",
        "format": "banner",
        "size": "300x250",
        "landing": "https://bank.example/",
        "markup": hostile,
    }
    made = owner.post(f"{V}/creatives", json={"line_item_id": 1, "spec": ad})
    assert made.status_code == 201, made.text
    page = owner.get(f"/creatives/{made.json()['id']}/preview")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "script-src" not in policy
    around = owner.get(f"/creatives/{made.json()['id']}")
    assert "<script>parent" not in around.text
    assert " sandbox " in around.text
    assert "frame-src 'self'" in around.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/creatives/{}", "/creatives/{}/preview", "/line-items/3/new-creative"])
def test_foreign_ads_do_not_exist(sign_in: Callable[..., TestClient], path: str) -> None:
    mine, rival = sign_in("trader", 2), sign_in("admin", 1)
    ad = mine.get(f"{V}/creatives").json()["items"][0]["id"]
    assert mine.get(path.format(ad)).status_code == 200
    assert rival.get(path.format(ad)).status_code == 404
    assert "Autumn" not in rival.get("/creatives").text


def test_who_may_only_read_makes_no_ad(sign_in: Callable[..., TestClient]) -> None:
    analyst = sign_in("analyst", 1)
    assert analyst.get("/line-items/1/new-creative").status_code == 403
    assert upload(analyst, PNG)[0] == 403


def test_segments_overlaps_and_consent_are_of_the_sample() -> None:
    people = np.zeros(4, PROFILE)
    for row, numbers in enumerate(([101, 102], [101], [101, 102], [])):
        people["segments"][row, : len(numbers)] = numbers
        people["n_segments"][row] = len(numbers)
    people["segment_expiry_d"] = 65_535
    people["segment_expiry_d"][2, 1] = 19_000  # over
    people["consent"] = [3, 1, 0, 1]
    people["consent_until_d"] = [0, 19_000, 0, 30_000]
    found = _count(4000, people, 20_000)
    assert (found.segments, found.pairs) == ({101: 3, 102: 1}, {(101, 102): 1})
    assert (found.profiling, found.financial, found.expired) == (3, 1, 1)
    assert found.estimate(3) == 3000
