"""How bid requests travel to a running bidder: HTTP with JSON or protobuf, and gRPC with its exchange's token.

An answer is (status, payload, seconds); gRPC's codes are told as the HTTP statuses that mean the same, so that callers
count one vocabulary: 200 bid, 204 no bid, 400, 413, 429, 503, and 0 for no answer in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import grpc
import msgspec

from dsp.market.http_client import HttpClient, http_message
from dsp.market.supply import Scene, encode_pb
from dsp.market.venues import Venue
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

METHOD = "/dsp.v1.Bidder/Bid"
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 0,
}


class Heard(NamedTuple):
    """What came back."""

    status: int
    payload: bytes
    format: int
    seconds: float


Ask = Callable[[Scene, Venue], Coroutine[Any, Any, Heard]]


class HttpWire:
    """Asks over HTTP/1.1; ``format`` FMT_JSON or FMT_PROTOBUF."""

    def __init__(self, client: HttpClient, format_: int) -> None:
        self._client = client
        self._format = format_
        self._json = msgspec.json.Encoder()
        kind = "application/json" if format_ == FMT_JSON else "application/x-protobuf"
        self._headers = f"content-type: {kind}\r\nx-openrtb-version: 2.6\r\n"

    async def ask(self, scene: Scene, venue: Venue) -> Heard:
        """One auction; never raises for what the network or the bidder does."""
        body = self._json.encode(scene.body) if self._format == FMT_JSON else encode_pb(scene.body)
        headers = self._headers + (f"authorization: Bearer {venue.token}\r\n" if venue.token else "")
        message = http_message("POST", f"/bid/{venue.name}", self._client.host, headers, body)
        begun = time.perf_counter()
        try:
            reply = await self._client.ask(message, venue.tmax_ms / 1000)
        except OSError:
            return Heard(0, b"", self._format, time.perf_counter() - begun)
        return Heard(reply.status, reply.body, self._format, reply.seconds)


class GrpcWire:
    """Asks over gRPC, bytes in and out; the exchange is the call's bearer token.

    On grpc's threaded client: `grpc.aio` takes one event off its queue per turn of the loop, so on a loop as busy as a
    market's, answers that arrived in a millisecond wait for seconds. Here the library's thread takes the time.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._call = self._channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)

    async def ask(self, scene: Scene, venue: Venue) -> Heard:
        """One auction; never raises for what the network or the bidder does."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[float] = loop.create_future()
        body = encode_pb(scene.body)
        metadata = (("authorization", f"Bearer {venue.token}"),)
        begun = time.perf_counter()
        call = self._call.future(body, timeout=venue.tmax_ms / 1000, metadata=metadata)

        def done(_: grpc.Future) -> None:
            seconds = time.perf_counter() - begun
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, waiting, seconds)

        call.add_done_callback(done)
        seconds = await waiting
        code = call.code()
        if code is not grpc.StatusCode.OK:
            return Heard(_STATUS.get(code, 500), b"", FMT_PROTOBUF, seconds)
        return Heard(200, call.result(), FMT_PROTOBUF, seconds)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _set(waiting: asyncio.Future[float], seconds: float) -> None:
    if not waiting.done():
        waiting.set_result(seconds)
