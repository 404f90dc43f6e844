"""A small sample of what exchanges send: one request a second of each worker, without anything that tells a person.

The console replays it to say why a line item does not bid and what a new one would reach. It is taken between batches,
from what the engine's columns still hold of the last one, so that no request waits for it. Ids, addresses and free text
of the person are dropped before anything is written; two files of `MOST` lines are kept.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from dsp.openrtb.columns import FMT_JSON, R_EXCHANGE, Batch
from dsp.openrtb.convert import request_of

MOST = 900  # lines to a file
_LONGEST = 64 << 10
_DROPPED = ("id", "buyeruid", "yob", "gender", "keywords", "customdata", "data", "eids", "geo")  # of user
_DEVICE = ("ifa", "didsha1", "didmd5", "dpidsha1", "dpidmd5", "macsha1", "macmd5", "ip", "ipv6", "ext")
_PLACE = ("lat", "lon", "zip", "accuracy")
_CONSENT = ("consent", "gdpr", "us_privacy")


class Sampled(msgspec.Struct):
    """One request: when, from which exchange (its name), as JSON, and how many requests it stands for."""

    time_ms: int
    exchange: str
    stands_for: int
    body: Any


class RequestSample:
    """Writes one worker's sample below ``directory``. ``every_ns``: the least time between two."""

    def __init__(self, directory: Path, worker: str, every_ns: int) -> None:
        self.directory, self.every_ns = directory, every_ns
        self._file, self._old = directory / f"{worker}.jsonl", directory / f"{worker}.old.jsonl"
        self._next_ns = self._lines = 0
        self._seen = 0

    def take(self, batch: Batch, exchanges: Any, total: int, now_ns: int, now_ms: int) -> None:
        """Keep the first request of the last batch, if it is time. ``total``: requests the worker has ever had."""
        if now_ns < self._next_ns or not batch.n or total == self._seen:
            return
        self._next_ns = now_ns + self.every_ns
        length, fmt = int(batch.spans[0, 0]), int(batch.spans[0, 1])
        body = scrubbed(batch.text[:length].tobytes(), fmt) if length <= _LONGEST else None
        at = int(batch.req[0, R_EXCHANGE])
        if body is None or not 0 <= at < len(exchanges):
            return
        one = Sampled(now_ms, str(exchanges[at]), total - self._seen, body)
        self._seen = total
        with contextlib.suppress(OSError):  # a full disk costs the sample, nothing else
            self._append(msgspec.json.encode(one) + b"\n")

    def _append(self, line: bytes) -> None:
        if self._lines == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
        if self._lines >= MOST:
            self._file.replace(self._old)
            self._lines = 0
        with self._file.open("ab") as file:
            file.write(line)
        self._lines += 1


def scrubbed(body: bytes, fmt: int) -> dict[str, Any] | None:
    """A request as JSON without what tells a person; None where it can't be read."""
    try:
        request = msgspec.json.decode(body) if fmt == FMT_JSON else request_of(body)
    except Exception:  # whatever a parser of foreign bytes may raise: it is a sample
        return None
    if not isinstance(request, dict):
        return None
    user, device = request.get("user"), request.get("device")
    if isinstance(user, dict):
        extra: Any = user.get("ext") if isinstance(user.get("ext"), dict) else {}
        kept = {k: v for k, v in user.items() if k not in _DROPPED and k != "ext"}
        request["user"] = kept | {"ext": {k: v for k, v in extra.items() if k in _CONSENT}}
    if isinstance(device, dict):
        request["device"] = device = {k: v for k, v in device.items() if k not in _DEVICE}
        if isinstance(device.get("geo"), dict):
            device["geo"] = {k: v for k, v in device["geo"].items() if k not in _PLACE}
    return request


def read_sample(directory: Path, most: int) -> list[Sampled]:
    """The newest requests of all workers, at most ``most``."""
    found: list[Sampled] = []
    decoder = msgspec.json.Decoder(Sampled)
    for file in directory.glob("*.jsonl"):
        with contextlib.suppress(OSError):
            for line in file.read_bytes().splitlines()[-most:]:
                with contextlib.suppress(msgspec.DecodeError):  # the last line of a worker that was killed
                    found.append(decoder.decode(line))
    return sorted(found, key=lambda one: -one.time_ms)[:most]
