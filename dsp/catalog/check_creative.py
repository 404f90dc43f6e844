"""What must hold of one ad: everything its format needs is there, URLs are URLs, sizes are sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from dsp.catalog.dynamic import MAX_COMBINATIONS, approved, combinations, expand
from dsp.catalog.layout import WHENS
from dsp.catalog.names import MAX_DATA_TYPE, VAST_VERSIONS
from dsp.catalog.source import FieldPath, Problem
from dsp.catalog.types import KINDS_OF_PARTS, Creative, Dynamic, Native

FLEXIBLE = "flex"
_PART_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_LIMIT = 62  # attributes and APIs are kept as bits of an int64
_Say = Callable[[str, str], None]  # field, message
_COLOR = re.compile(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?")


def parse_size(text: str) -> tuple[int, int]:
    """ "300x250" as (300, 250), "flex" as (0, 0). Raises ValueError."""
    if text == FLEXIBLE:
        return 0, 0
    match = _SIZE.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > 65535:
        raise ValueError(f"{text!r} is not a size; write 300x250, or flex for an ad that fills any size")
    return int(match[1]), int(match[2])


def is_url(text: str) -> bool:
    """Whether ``text`` is an absolute http(s) URL without blanks."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"[\s\"'<>]", text)


def check_creative(at: FieldPath, creative: Creative, language: str) -> list[Problem]:
    """The problems of the ad at path ``at`` of a line item that speaks ``language``."""
    problems: list[Problem] = []

    def say(field: str, message: str) -> None:
        problems.append(((*at, *(int(s) if s.isdecimal() else s for s in field.split("."))), message))

    urls = {"landing": creative.landing, "image": creative.image, "media": creative.media}
    if creative.native is not None:
        urls |= {f"native.{k}.url": i.url for k in ("icon", "image") if (i := getattr(creative.native, k)) is not None}
    for field, url in urls.items():
        if (url or field == "landing") and not is_url(url):
            say(field, f"{url!r} is not a URL; write https://...")
        elif creative.secure and url.startswith("http:"):
            say(field, f"{url} is not https, and secure is true")
    if creative.secure and re.search(r"http:(?!//(www\.)?w3\.org)", creative.markup):
        say("markup", "has an http: URL, and secure is true")
    if creative.language and creative.language != language:
        say("language", f"is {creative.language}, the line item's is {language}; make a line item of its own for it")
    for field, numbers in (("attr", creative.attr), ("api", creative.api)):
        if any(not 1 <= n <= _LIMIT for n in numbers):
            say(field, f"OpenRTB numbers go from 1 to {_LIMIT}")
    if not _COLOR.fullmatch(creative.color):
        say("color", f"{creative.color!r} is not a colour; write #0b3d91")
    most = WHENS if creative.parts else WHENS - len(KINDS_OF_PARTS)
    if len(creative.when) > most:
        say("when", f"{len(creative.when)} conditions; write at most {most}")
    if creative.dynamic is not None:
        _check_dynamic(creative, creative.dynamic, say)
        creative = next(expand(creative), creative)  # with parts in place it must be an ad like any other
    if creative.format == "banner":
        _check_banner(creative, say)
    elif creative.format == "video":
        _check_video(creative, say)
    elif creative.native is None:
        say("native", "is missing; a native ad needs native: {title: ...}")
    else:
        _check_native(creative.native, say)
    return problems


def _check_dynamic(creative: Creative, dynamic: Dynamic, say: _Say) -> None:
    """Parts that can be told apart and fit the format, and no more combinations than can be looked through."""
    if creative.format == "video" or creative.markup:
        say("dynamic", "is for banners that we lay out and for native ads; a video or own markup has no parts")
    if creative.parts:
        say("parts", "is filled from dynamic; leave it out")
    if not any(getattr(dynamic, kind) for kind in KINDS_OF_PARTS):
        say("dynamic", f"has no parts; write some of {', '.join(KINDS_OF_PARTS)}")
    for kind in KINDS_OF_PARTS:
        parts = getattr(dynamic, kind)
        names = [part.name for part in parts]
        for i, part in enumerate(parts):
            at = f"dynamic.{kind}.{i}"
            if not _PART_NAME.fullmatch(part.name):
                say(f"{at}.name", f"{part.name!r} is not a part's name; write letters, digits, - and _, 40 at most")
            elif part.name in names[:i]:
                say(f"{at}.name", f"{part.name!r} is there twice")
            if kind == "image" and not is_url(part.text):
                say(f"{at}.text", f"{part.text!r} is not a URL; write https://...")
            elif not part.text.strip():
                say(f"{at}.text", "is empty")
    count = combinations(creative)
    if count > MAX_COMBINATIONS:
        numbers = " x ".join(
            f"{len(approved(dynamic, kind))} {kind}" for kind in KINDS_OF_PARTS if getattr(dynamic, kind)
        )
        say(
            "dynamic",
            f"{numbers} approved parts make {count} ads; at most {MAX_COMBINATIONS} are possible: take some out",
        )


def _check_banner(creative: Creative, say: _Say) -> None:
    if bool(creative.size) == bool(creative.sizes):
        say("size", "a banner needs size or sizes, one of them; write size: 300x250")
    for i, size in enumerate(creative.sizes or ((creative.size,) if creative.size else ())):
        try:
            parse_size(size)
        except ValueError as error:
            say(f"sizes.{i}" if creative.sizes else "size", str(error))
    if not (creative.markup or creative.image or creative.headline):
        say("headline", "a banner needs something to show: headline, image or markup")
    if not 0 <= creative.btype <= _LIMIT:
        say("btype", "OpenRTB banner ad types go from 1 to 4")


def _check_video(creative: Creative, say: _Say) -> None:
    if not creative.media:
        say("media", "is missing; a video needs the URL of its file")
    if not 1 <= creative.duration_s <= 3600:
        say("duration_s", f"{creative.duration_s} is not a duration; write its seconds, 1 to 3600")
    if creative.protocol not in VAST_VERSIONS:
        known = ", ".join(f"{p} (VAST {v})" for p, v in VAST_VERSIONS.items())
        say("protocol", f"{creative.protocol} is not written here; write {known}")
    if creative.size:
        try:
            parse_size(creative.size)
        except ValueError as error:
            say("size", str(error))
    if creative.bitrate_kbps < 1:
        say("bitrate_kbps", "must be 1 or more")


def _check_native(native: Native, say: _Say) -> None:
    if not native.title.strip():
        say("native.title", "is empty; a native ad needs a title")
    for name in ("icon", "image"):
        image = getattr(native, name)
        if image is not None and not (1 <= image.w <= 65535 and 1 <= image.h <= 65535):
            say(f"native.{name}", "w and h must be its size in pixels")
    for number in native.data:
        if not number.isdecimal() or not 1 <= int(number) <= MAX_DATA_TYPE:
            say(f"native.data.{number}", f"{number!r} is not a data asset type; write 1 to {MAX_DATA_TYPE}")
