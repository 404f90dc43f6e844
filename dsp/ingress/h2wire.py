"""HTTP/2 as a gRPC client speaks it: the preface, and every request as ready-made frames (RFC 9113, RFC 7541).

A request is one HEADERS frame and its DATA frames. The header block is the same bytes for each request: literals never
indexed, no Huffman, so it does not depend on the connection's HPACK state. We announce a header table of size 0, so the
answers don't either. For a caller that must cost next to nothing: a new worker's own (`dsp.ingress.rehearsal`), a load
generator's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

DATA = 0
HEADERS = 1
SETTINGS = 4
WINDOW_UPDATE = 8

END_STREAM = 1
END_HEADERS = 4

SETTINGS_HEADER_TABLE_SIZE = 1
SETTINGS_ENABLE_PUSH = 2
SETTINGS_INITIAL_WINDOW_SIZE = 4

MAX_FRAME_BYTES = 16384  # the default; we announce no larger one and never send a larger one
DEFAULT_WINDOW_BYTES = 65535
MAX_WINDOW_BYTES = 2**31 - 1

_STATIC_NAMES = {":authority": 1, ":path": 4, "content-type": 31, "user-agent": 58, "authorization": 23}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame: 9 bytes of header and the payload."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def preface() -> bytes:
    """What a connection starts with: the magic, our SETTINGS, and a receive window that never fills."""
    settings = struct.pack(
        ">HIHIHI",
        *(SETTINGS_HEADER_TABLE_SIZE, 0),
        *(SETTINGS_ENABLE_PUSH, 0),
        *(SETTINGS_INITIAL_WINDOW_SIZE, MAX_WINDOW_BYTES),
    )
    window = struct.pack(">I", MAX_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window)


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    """An HPACK integer (RFC 7541, 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _text(text: str) -> bytes:
    raw = text.encode()
    return _integer(len(raw), 7, 0) + raw


def header_block(authority: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The request's header block: POST over http, gRPC's own headers, then ``headers`` (lower-case names)."""
    fields = [
        (":path", path), (":authority", authority), ("te", "trailers"), ("content-type", "application/grpc"),
        ("user-agent", "dsp"), *headers,
    ]  # fmt: skip
    out = b"\x83\x86"  # :method POST, :scheme http
    for name, value in fields:
        index = _STATIC_NAMES.get(name, 0)
        out += _integer(index, 4, 0x10) + (b"" if index else _text(name)) + _text(value)
    return out


def request_frames(block: bytes, body: bytes, stream: int = 0) -> bytes:
    """HEADERS and DATA for one call."""
    message = b"\0" + struct.pack(">I", len(body)) + body
    out = frame(HEADERS, END_HEADERS, stream, block)
    for start in range(0, len(message), MAX_FRAME_BYTES):
        chunk = message[start : start + MAX_FRAME_BYTES]
        out += frame(DATA, END_STREAM if start + MAX_FRAME_BYTES >= len(message) else 0, stream, chunk)
    return out
