"""What the gRPC load generator knows of HTTP/2 beyond a client's frames (`dsp.ingress.h2wire`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RST_STREAM = 3
PING = 6
GOAWAY = 7
CONTINUATION = 9

ACK = 1
PADDED = 8
PRIORITY = 0x20

SETTINGS_MAX_CONCURRENT_STREAMS = 3

GRPC_PREFIX_BYTES = 5

# "grpc-status" as HPACK writes it, plain and Huffman coded; the test decodes both with an independent implementation.
GRPC_STATUS = np.frombuffer(b"grpc-status", np.uint8)
GRPC_STATUS_HUFFMAN = np.frombuffer(bytes.fromhex("9acac8b21234da8f"), np.uint8)


def pack(parts: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All parts in one uint8 buffer, and int64[n + 1] offsets."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return np.frombuffer(b"".join(parts), np.uint8), offsets
