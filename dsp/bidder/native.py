"""The markup of a native bid: the request's assets filled with the creative's parts.

Which assets a slot asks for differs by placement, not by request, so a filled text is cached by (hash of the native
request, creative); what varies per bid is only the token, for which the text is a bytes %-format.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.catalog.layout import TOKEN_SLOT
from dsp.openrtb.columns import ASSET_DATA, ASSET_IMG, ASSET_TITLE, ASSET_WIDTH

MAX_CACHED = 4096
ICON = 1

Assets = npt.NDArray[np.int64]


def _image(part: dict[str, Any], w: int, h: int, flags: int) -> dict[str, Any]:
    """The image, in its own size, or scaled to the exact size the slot names."""
    if not flags & 3 and w > 0 and h > 0:
        return {"url": part["url"], "w": w, "h": h}
    return {"url": part["url"], "w": part["w"], "h": part["h"]}


def _big_enough(part: dict[str, Any] | None, w: int, h: int, flags: int) -> bool:
    if not part:
        return False
    return not ((flags & 1 and part["w"] < w) or (flags & 2 and part["h"] < h))


def _asset(row: list[int], parts: dict[str, Any]) -> dict[str, Any] | None:
    """One asset of the response, or None where the creative has nothing for it."""
    number, required, kind, type_, length, w, h, flags = row
    answer: dict[str, Any] = {"id": number}
    if required:
        answer["required"] = 1
    if kind == ASSET_TITLE:
        title = parts.get("title", "")
        if not title or (length and len(title) > length):
            return None
        return {**answer, "title": {"text": title}}
    if kind == ASSET_IMG:
        part = parts.get("icon" if type_ == ICON else "image")
        return {**answer, "img": _image(part, w, h, flags)} if part and _big_enough(part, w, h, flags) else None
    if kind == ASSET_DATA:
        value = parts.get("data", {}).get(str(type_))
        if value is None or (length and len(value) > length):
            return None
        return {**answer, "data": {"value": value}}
    return None


def native_text(assets: Assets, version: int, wrapped: bool, parts: dict[str, Any]) -> tuple[bytes, bytes, int]:
    """The native response as (%-format of the plain text, the same escaped as a JSON string's content, tokens in it).

    ``assets`` int64[n * ASSET_WIDTH] as decoded; ``version`` 10 * major + minor; ``parts`` a snapshot's native parts.
    """
    rows = assets.reshape(-1, ASSET_WIDTH).tolist()
    filled = [asset for row in rows if (asset := _asset(row, parts)) is not None]
    body: dict[str, Any] = {"ver": f"{version // 10}.{version % 10}" if version else "1.2", "assets": filled}
    body["link"] = {"url": parts["click"]}
    if version >= 12 or not version:
        body["eventtrackers"] = [{"event": 1, "method": 1, "url": url} for url in parts.get("imptrackers", [])]
    else:
        body["imptrackers"] = list(parts.get("imptrackers", []))
    text = msgspec.json.encode({"native": body} if wrapped else body)
    escaped = msgspec.json.encode(text.decode())[1:-1]
    slot = TOKEN_SLOT.encode()
    return (
        text.replace(b"%", b"%%").replace(slot, b"%b"),
        escaped.replace(b"%", b"%%").replace(slot, b"%b"),
        text.count(slot),
    )


class NativeCache:
    """Filled native texts by (request hash, creative); bounded: when full it starts again."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int], tuple[bytes, bytes, int]] = {}

    def get(
        self, key: int, creative: int, assets: Assets, version: int, wrapped: bool, parts: dict[str, Any]
    ) -> tuple[bytes, bytes, int]:
        """As `native_text`, from the cache where it is known."""
        found = self._texts.get((key, creative))
        if found is None:
            if len(self._texts) >= MAX_CACHED:
                self._texts.clear()
            found = self._texts[key, creative] = native_text(assets, version, wrapped, parts)
        return found
