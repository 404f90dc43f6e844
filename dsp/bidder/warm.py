"""Requests that make a new engine compile and touch everything, so that the first real one finds it at full speed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

BANNER_REQUEST: dict[str, Any] = {
    "id": "warm",
    "test": 1,
    "tmax": 10_000,
    "imp": [
        {
            "id": "1",
            "banner": {"w": 300, "h": 250, "format": [{"w": 300, "h": 250}, {"w": 320, "h": 50}]},
            "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 60, "protocols": [2, 3, 7]},
            "native": {"request": json.dumps({"ver": "1.2", "assets": [{"id": 1, "title": {"len": 90}}]})},
            "pmp": {"deals": [{"id": "warm"}]},
        }
    ],
    "app": {"bundle": "com.example", "publisher": {"id": "p"}, "cat": ["IAB13"]},
    "device": {"ua": "Mozilla/5.0", "os": "Android", "ifa": "ab12cd34-0000-4000-8000-000000000001", "language": "en",
               "geo": {"country": "USA", "region": "CA"}},
    "user": {"buyeruid": "warm"},
    "bcat": ["IAB25"],
    "badv": ["example.com"],
}  # fmt: skip

# The same in protobuf, as far as the walker needs: id = 1, imp = 2 {id = 1}, test = 15.
PROTOBUF_REQUEST = b"\x0a\x04warm\x12\x03\x0a\x011\x78\x01"


def warm_bodies(repeat: int) -> tuple[list[bytes], list[int]]:
    """``repeat`` JSON requests and as many in protobuf, all marked as tests."""
    body = json.dumps(BANNER_REQUEST).encode()
    bodies = [body, PROTOBUF_REQUEST] * repeat
    return bodies, [FMT_JSON, FMT_PROTOBUF] * repeat


def touch(array: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> int:
    """Read a mapped array once, page by page, so that the first request does not wait for the disk."""
    flat = array.reshape(-1).view(np.uint8)
    return int(flat[::4096].sum(dtype=np.int64)) if flat.size else 0
