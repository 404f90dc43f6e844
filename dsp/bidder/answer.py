"""What `Engine.decide` says of each request: a kind and a payload, in the order of the requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dsp.openrtb.columns import OK

BID = 0  # payload: the BidResponse in the request's own format
NO_BID = 1  # payload: empty, or a BidResponse with `nbr` where the front wants one (gRPC)
BAD = 2  # payload: what is wrong and where, plain text: 400 / INVALID_ARGUMENT
TOO_LARGE = 3  # 413 / RESOURCE_EXHAUSTED
SHED = 4  # QPS cap or queue: 429 / RESOURCE_EXHAUSTED

Answer = tuple[int, bytes]
Numbers = Sequence[int] | npt.NDArray[np.int64]  # one per request; an array saves reading a list
KINDS = ("bid", "no_bid", "bad", "too_large", "shed")
assert OK == 0
