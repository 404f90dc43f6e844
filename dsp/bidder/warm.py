"""Requests that make a new engine compile and touch everything, so that the first real one finds it at full speed."""

from __future__ import annotations

import json
from typing import Any

from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF
from dsp.openrtb.convert import json_to_pb

_ASSETS = [
    {"id": 1, "required": 1, "title": {"len": 90}},
    {"id": 2, "required": 1, "img": {"type": 3, "wmin": 300, "hmin": 157}},
    {"id": 3, "data": {"type": 2, "len": 140}},
]
_DEVICE: dict[str, Any] = {
    "ua": "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
    "os": "Android", "osv": "14", "make": "Google", "model": "Pixel 8", "devicetype": 4, "connectiontype": 2,
    "js": 1, "language": "en", "ip": "203.0.113.9", "ifa": "ab12cd34-0000-4000-8000-000000000001",
    "geo": {"country": "USA", "region": "CA", "city": "San Jose", "type": 2},
}  # fmt: skip
_COMMON: dict[str, Any] = {
    "at": 1, "tmax": 10_000, "cur": ["USD"], "bcat": ["IAB25", "IAB26"], "badv": ["example.com", "example.org"],
    "device": _DEVICE, "user": {"id": "warm", "buyeruid": "warm"}, "source": {"tid": "warm"},
}  # fmt: skip
REQUESTS: tuple[dict[str, Any], ...] = (
    {
        "id": "warm-app",
        **_COMMON,
        "imp": [
            {"id": "1", "secure": 1, "bidfloor": 0.01, "bidfloorcur": "USD", "instl": 1,
             "banner": {"w": 320, "h": 50, "format": [{"w": 320, "h": 50}, {"w": 300, "h": 250}], "battr": [1, 2]},
             "pmp": {"deals": [{"id": "warm", "bidfloor": 1.0, "at": 1}]}},
            {"id": "2", "native": {"ver": "1.2", "request": json.dumps({"ver": "1.2", "assets": _ASSETS})}},
        ],
        "app": {"id": "1", "name": "Example", "bundle": "com.example", "cat": ["IAB13"], "publisher": {"id": "p"}},
    },
    {
        "id": "warm-site",
        **_COMMON,
        "imp": [
            {"id": "1", "banner": {"format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}, {"w": 300, "h": 600}]}},
            {"id": "2", "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 60, "protocols": [2, 3, 7],
                                  "w": 640, "h": 360, "linearity": 1, "api": [7]}},
        ],
        "site": {"domain": "example.com", "page": "https://example.com/money", "cat": ["IAB13"],
                 "publisher": {"id": "p", "domain": "example.com"}},
    },
)  # fmt: skip


def warm_bodies(repeat: int) -> tuple[list[bytes], list[int]]:
    """``repeat`` times each request in JSON and in protobuf, and their formats."""
    bodies: list[bytes] = []
    for request in REQUESTS:
        bodies += [json.dumps(request).encode(), json_to_pb(request).SerializeToString()]
    return bodies * repeat, [FMT_JSON, FMT_PROTOBUF] * len(REQUESTS) * repeat
