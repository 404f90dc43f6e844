"""What an HTTP answer looks like: statuses and header lines by OpenRTB 2.6 (section 2) and RFC 9110, made once."""

from __future__ import annotations

import hmac

from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

Headers = list[tuple[str, str]]

VERSION = ("x-openrtb-version", "2.6")
CLOSE = ("connection", "close")
JSON = "application/json"
PROTOBUF = "application/x-protobuf"

_TYPES = {
    None: FMT_JSON,
    JSON: FMT_JSON,
    PROTOBUF: FMT_PROTOBUF,
    "application/protobuf": FMT_PROTOBUF,
    "application/octet-stream": FMT_PROTOBUF,
    "text/plain": FMT_JSON,  # what some exchanges' HTTP clients send by default
}
GZIPPED = 2  # added to a format, these index BID_HEADERS
CLOSING = 4
BID_HEADERS: tuple[Headers, ...] = tuple(
    [
        ("content-type", PROTOBUF if index & 1 == FMT_PROTOBUF else JSON),
        VERSION,
        *([("content-encoding", "gzip"), ("vary", "accept-encoding")] if index & GZIPPED else []),
        *([CLOSE] if index & CLOSING else []),
    ]
    for index in range(8)
)
NO_BID_HEADERS: tuple[Headers, Headers] = ([VERSION], [VERSION, CLOSE])
assert (FMT_JSON, FMT_PROTOBUF) == (0, 1)


def format_of(content_type: str | None) -> int:
    """FMT_JSON or FMT_PROTOBUF by a Content-Type (JSON without one), -1 for any other."""
    known = _TYPES.get(content_type)
    if known is not None:
        return known
    assert content_type is not None
    return _TYPES.get(content_type.partition(";")[0].strip().lower(), -1)


def error_headers(message: str, *more: tuple[str, str]) -> Headers:
    """Header lines of a refusal: OpenRTB wants no content, so what is wrong travels as a header of printable ASCII."""
    text = message[:400].encode("ascii", "replace").decode("ascii")
    return [("x-dsp-error", "".join(c if " " <= c <= "~" else "?" for c in text)), VERSION, *more]


def shows_token(authorization: str | None, token: str) -> bool:
    """Whether an Authorization header is ``Bearer <token>``, compared in constant time."""
    if authorization is None or authorization[:7].lower() != "bearer ":
        return False
    return hmac.compare_digest(authorization[7:].strip().encode(), token.encode())
