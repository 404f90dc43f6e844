"""Plain clients of a running bidder, one per wire: what an exchange would send, and what came back, as HTTP says it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from bench.load.request import METHOD

TIMEOUT_S = 10.0
NO_ANSWER = 0  # status of a call that timed out or lost its connection
# gRPC's codes as the HTTP status that says the same (google.rpc.Code).
_HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: NO_ANSWER,
}


@dataclass(frozen=True)
class Reply:
    """A status (NO_ANSWER for none), header lines in lower case, and the body or the error's text."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Client(Protocol):
    """Sends one body at a time."""

    def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Wait for the answer, at most TIMEOUT_S."""

    def close(self) -> None:
        """Close the connection."""


class HttpClient:
    """POSTs to one path over one kept-alive connection; a lost one is replaced."""

    def __init__(self, address: tuple[str, int], path: str, content_type: str, token: str = "") -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
        self._path = path
        self._headers = {"content-type": content_type, "x-openrtb-version": "2.6"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """POST ``body``; ``headers`` add to or replace the usual ones."""
        try:
            self._connection.request("POST", self._path, body, {**self._headers, **(headers or {})})
        except BrokenPipeError:
            pass  # the server refused before it had everything: its answer may be there all the same
        except OSError:
            self.close()
            return Reply(NO_ANSWER, b"connection lost while sending")
        try:
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Reply(NO_ANSWER, repr(error).encode())
        return Reply(response.status, answer, {name.lower(): value for name, value in response.getheaders()})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class GrpcClient:
    """Calls `Bidder/Bid` with ready-made bytes over `grpcio`."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._channel = grpc.insecure_channel(
            f"{address[0]}:{address[1]}", options=[("grpc.max_send_message_length", -1)]
        )
        self._call = self._channel.unary_unary(METHOD)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Call with ``body``; ``headers`` go as metadata."""
        metadata = (*self._metadata, *(headers or {}).items())
        try:
            return Reply(200, self._call(body, timeout=TIMEOUT_S, metadata=metadata))
        except grpc.RpcError as error:
            return Reply(_HTTP_STATUS.get(error.code(), 500), (error.details() or "").encode())

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
