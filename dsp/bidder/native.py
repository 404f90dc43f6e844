"""The markup of a native bid: the request's assets filled with the creative's parts.

Which assets a slot asks for differs by placement, not by request, so a filled text is kept by (hash of the native
request, creative) and found again by a kernel; what varies per bid is only the token, for which the text is a bytes
%-format.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel
from dsp.base.token import TOKEN_TEXT_BYTES
from dsp.bidder.marks import PERCENT
from dsp.bidder.price import B_CAND
from dsp.bidder.rank import C_CR, C_IMP, C_MEDIA
from dsp.catalog.layout import TOKEN_SLOT
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import (
    ASSET_DATA,
    ASSET_IMG,
    ASSET_TITLE,
    ASSET_WIDTH,
    FMT_JSON,
    I_N_ASSETS0,
    I_N_ASSETSN,
    I_N_HASH,
    I_N_VER,
    I_N_WRAPPED,
    I_REQ,
    NATIVE,
    R_FMT,
    Batch,
)
from dsp.openrtb.hashing import mix64
from dsp.openrtb.limits import MAX_BATCH, MAX_IMPS

MAX_CACHED = 4096  # texts; more than a batch can have
ICON = 1
# --- table of texts: int64[n, T_WIDTH], open addressing; its last columns are the span of a bid
(T_USED, T_HASH, T_AD, T_SPAN) = range(4)
(S_START, S_END, S_FIRST, S_LAST) = range(4)  # of the text, and of its marks
S_WIDTH = 4
T_WIDTH = T_SPAN + S_WIDTH

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

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


def native_text(assets: Assets, version: int, wrapped: bool, parts: dict[str, Any]) -> tuple[bytes, bytes]:
    """The native response as (%-format of the plain text, the same escaped as a JSON string's content).

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
    )


@inlined
def ad_key(creative: int, version: int, wrapped: int, fmt: int) -> int:
    """What of a native text is not said by the hash of the request it answers."""
    return (creative << 16) | ((version & 0xFFF) << 2) | ((wrapped & 1) << 1) | fmt


@inlined
def slot_of(request_hash: int, which: int) -> int:
    """Where the probe for a text begins."""
    return int(mix64(np.uint64(request_hash) + np.uint64(which) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(1))


@kernel
def find_natives(
    n: int, bids: I64, cand: I64, imp: I64, req: I64, table: I64, spans: I64, missing: I64
) -> tuple[int, int]:
    """Fill ``spans`` int64[n, S_WIDTH] for the bids with a native ad, zeros for the others.

    Those that ``table`` does not know are listed in ``missing``. Returns how many they are, and how many bytes the
    known texts take with their tokens filled in.
    """
    count = size = 0
    mask = table.shape[0] - 1
    for b in range(n):
        a = bids[b, B_CAND]
        i = cand[a, C_IMP]
        span = spans[b]
        span[S_START] = span[S_END] = span[S_FIRST] = span[S_LAST] = 0
        if cand[a, C_MEDIA] != NATIVE:
            continue
        which = ad_key(cand[a, C_CR], imp[i, I_N_VER], imp[i, I_N_WRAPPED], req[imp[i, I_REQ], R_FMT])
        slot = slot_of(imp[i, I_N_HASH], which) & mask
        while table[slot, T_USED] != 0 and (table[slot, T_HASH] != imp[i, I_N_HASH] or table[slot, T_AD] != which):
            slot = (slot + 1) & mask
        if table[slot, T_USED] == 0:
            missing[count] = b
            count += 1
            continue
        for k in range(S_WIDTH):
            span[k] = table[slot, T_SPAN + k]
        size += span[S_END] - span[S_START] + TOKEN_TEXT_BYTES * (span[S_LAST] - span[S_FIRST])
    return count, size


class NativeTexts:
    """The filled native ads of one snapshot, in one buffer; bounded: when full it starts again.

    ``text`` uint8 holds them one after another, ``marks`` int64 where their tokens go (as `dsp.bidder.marks`),
    ``spans`` int64[n, S_WIDTH] says which part of both bid b has.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._table: I64 = np.zeros((4 * MAX_CACHED, T_WIDTH), np.int64)
        self.text: U8 = np.zeros(1 << 16, np.uint8)
        self.marks: I64 = np.zeros(1 << 10, np.int64)
        self.spans: I64 = np.zeros((MAX_BATCH * MAX_IMPS, S_WIDTH), np.int64)
        self._missing: I64 = np.zeros(MAX_BATCH * MAX_IMPS, np.int64)
        self._clear()

    def _clear(self) -> None:
        self._table[:] = 0
        self._used = self._marked = self._entries = 0

    def fill(self, batch: Batch, cand: I64, bids: I64, n_bids: int) -> int:
        """Find or make the native ads of a batch's bids; returns an upper bound of the bytes of their texts."""
        args = (n_bids, bids, cand, batch.imp, batch.req, self._table, self.spans, self._missing)
        missing, size = find_natives(*args)
        if missing:
            if self._entries + missing > MAX_CACHED:
                self._clear()
                missing, _ = find_natives(*args)
            for b in self._missing[:missing].tolist():
                self._add(batch, cand[bids[b, B_CAND]].tolist())
            _, size = find_natives(*args)
        return size

    def _add(self, batch: Batch, candidate: list[int]) -> None:
        imp = batch.imp[candidate[C_IMP]].tolist()
        fmt = int(batch.req[imp[I_REQ], R_FMT])
        creative, start = candidate[C_CR], imp[I_N_ASSETS0]
        assets = batch.pool[start : start + imp[I_N_ASSETSN] * ASSET_WIDTH]
        plain, escaped = native_text(assets, imp[I_N_VER], bool(imp[I_N_WRAPPED]), self._snapshot.native(creative))
        text = escaped if fmt == FMT_JSON else plain
        begin, first = self._used, self._marked
        self._used += len(text)
        while self._used > len(self.text):
            self.text = np.concatenate([self.text, np.zeros_like(self.text)])
        self.text[begin : self._used] = np.frombuffer(text, np.uint8)
        at = text.find(b"%")
        while at >= 0:
            if self._marked == len(self.marks):
                self.marks = np.concatenate([self.marks, np.zeros_like(self.marks)])
            self.marks[self._marked] = begin + at if text[at + 1] != PERCENT else ~(begin + at)
            self._marked += 1
            at = text.find(b"%", at + 2)
        which = ad_key(creative, imp[I_N_VER], imp[I_N_WRAPPED], fmt)
        mask = len(self._table) - 1
        slot = slot_of(imp[I_N_HASH], which) & mask
        while self._table[slot, T_USED]:
            slot = (slot + 1) & mask
        self._table[slot] = (1, imp[I_N_HASH], which, begin, self._used, first, self._marked)
        self._entries += 1
