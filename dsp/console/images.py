"""Pictures of ads: uploaded, looked at, kept by their hash, and served to everybody who sees the ad.

What is kept is what its first bytes say it is (PNG, JPEG, GIF, WebP), never what it was called; the name is the
SHA-256, so that a picture can be cached for ever and none can be put in another's place.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from dsp.base.config import Config
from dsp.console.errors import invalid, not_found
from dsp.console.models import Image

TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
MOST_PX = 4096
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # of JPEG's SOF range


def keep(config: Config, data: bytes) -> Image:
    """Keep a picture; its address and size. Raises 422."""
    if not config.console.images_url:
        raise invalid(
            "data", "no picture can be kept; set console.images_url to where /images of the console is public"
        )
    kind, w, h = look(data)
    name = f"{hashlib.sha256(data).hexdigest()}.{kind}"
    path = config.path("images", name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_bytes(data)
        temporary.replace(path)
    return Image(f"{config.console.images_url.rstrip('/')}/{name}", f"{w}x{h}", len(data))


def find(config: Config, name: str) -> tuple[Path, str]:
    """The file of a picture and its media type. Raises 404."""
    stem, _, kind = name.partition(".")
    path = config.path("images", name)
    if kind not in TYPES or len(stem) != 64 or not stem.isalnum() or not path.is_file():
        raise not_found("picture")
    return path, TYPES[kind]


def look(data: bytes) -> tuple[str, int, int]:
    """(kind, width, height) of a picture. Raises 422."""
    found = _size(data)
    if found is None:
        raise invalid("data", "not a picture; send a PNG, JPEG, GIF or WebP")
    kind, w, h = found
    if not (0 < w <= MOST_PX and 0 < h <= MOST_PX):
        raise invalid("data", f"too large a picture; at most {MOST_PX} pixels a side")
    return kind, w, h


def _size(data: bytes) -> tuple[str, int, int] | None:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return "png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return "gif", int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    return _jpeg(data) if data[:3] == b"\xff\xd8\xff" else None


def _webp(data: bytes) -> tuple[str, int, int] | None:
    """https://developers.google.com/speed/webp/docs/riff_container"""
    if data[12:16] == b"VP8X":
        return "webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return "webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 ":
        return (
            "webp",
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    return None


def _jpeg(data: bytes) -> tuple[str, int, int] | None:
    """ITU-T T.81, B.1.1: the first frame header."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            return "jpg", int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
