"""Hand-made rows of a decoded batch: what the decoder would have filled, without the decoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsp.openrtb.columns import REQUEST_COLUMNS, Batch
from dsp.openrtb.hashing import hash_text

SIGNALS = ("GDPR", "COPPA", "LMT", "DNT", "PIPL")  # -1 where not said


class Requests:
    """A batch under construction; `add` a request, then hand ``batch`` and ``n`` to a kernel."""

    def __init__(self) -> None:
        self.batch = Batch(text_bytes=1 << 16)
        self.n = 0
        self._text = 0
        self._pool = 0

    def add(self, **values: Any) -> int:
        """One request: numbers by column name, bytes/str for a string's name (IFA), lists for a list's (EIDS, GPPSID).

        COUNTRY and EID sources are given as text. Returns its row.
        """
        row = self.batch.req[self.n]
        row[:] = 0
        for name in SIGNALS:
            row[REQUEST_COLUMNS.index(name)] = -1
        for name, value in values.items():
            if name == "COUNTRY":
                row[REQUEST_COLUMNS.index(name)] = hash_text(value) if value else 0
            elif isinstance(value, str | bytes):
                at = REQUEST_COLUMNS.index(f"{name}_OFF")
                row[at : at + 2] = self._put(value)
            elif isinstance(value, list):
                at = REQUEST_COLUMNS.index(f"{name}0")
                row[at : at + 2] = self._pool, len(value)
                for entry in value:
                    numbers = [entry] if isinstance(entry, int) else [hash_text(entry[0]), *self._put(entry[1])]
                    self.batch.pool[self._pool : self._pool + len(numbers)] = numbers
                    self._pool += len(numbers)
            else:
                row[REQUEST_COLUMNS.index(name)] = value
        self.n += 1
        return self.n - 1

    def _put(self, text: str | bytes) -> tuple[int, int]:
        raw = text.encode() if isinstance(text, str) else text
        off = self._text
        self.batch.text[off : off + len(raw)] = np.frombuffer(raw, np.uint8) if raw else 0
        self._text += len(raw)
        return off, len(raw)
