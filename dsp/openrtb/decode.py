"""Bodies in, columns out: decode a batch of bid requests, JSON or protobuf, with one kernel call.

(being filled in; the signatures are final)
"""

from __future__ import annotations

from collections.abc import Sequence

from dsp.openrtb.columns import Batch


def decode_batch(batch: Batch, bodies: Sequence[bytes], formats: Sequence[int]) -> None:
    """Fill ``batch`` with ``len(bodies)`` requests; ``formats`` holds FMT_JSON or FMT_PROTOBUF for each."""
    raise NotImplementedError


def error_text(batch: Batch, i: int) -> str:
    """What is wrong with request ``i`` of the batch and where, for its sender."""
    raise NotImplementedError
