"""gzip both ways, bounded: a small body that unpacks into gigabytes costs no more than the limit it breaks."""

from __future__ import annotations

import zlib

from dsp.openrtb.limits import MAX_BODY_BYTES

_GZIP = 31  # zlib's window bits for the gzip format
WORTH_BYTES = 512  # smaller answers stay as they are


class GzipError(ValueError):
    """A body that is not one whole gzip member."""


class GzipTooLargeError(ValueError):
    """A body that unpacks to more than the limit."""


def gunzip(body: bytes, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The unpacked body. Raises `GzipError`, or `GzipTooLargeError` after unpacking ``limit_bytes`` and one."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        raw = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise GzipError(f"body is not gzip: {error}") from None
    if len(raw) > limit_bytes:
        raise GzipTooLargeError(f"body unpacks to more than {limit_bytes} bytes")
    if not unpacker.eof:
        raise GzipError("gzip body is cut short")
    if unpacker.unused_data:
        raise GzipError(f"{len(unpacker.unused_data)} bytes after the gzip body")
    return raw


def gzip_answer(payload: bytes) -> bytes | None:
    """The packed payload, or None where packing does not pay. Level 1: an answer waits for it."""
    if len(payload) <= WORTH_BYTES:
        return None
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    packed = packer.compress(payload) + packer.flush()
    return packed if len(packed) < len(payload) else None


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether the header allows gzip (RFC 9110, 12.5.3); ``*`` does, a weight of 0 does not."""
    if accept_encoding is None:
        return False
    if accept_encoding == "gzip":
        return True
    star = False
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        allowed = weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        if coding.strip() in ("gzip", "x-gzip"):
            return allowed
        if coding.strip() == "*":
            star = allowed
    return star
