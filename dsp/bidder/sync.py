"""The worker's connection to the ledger: one exchange at a time, every wait bounded.

gRPC (``/dsp.v1.Ledger/Sync``) and HTTP (``POST /sync``) carry the same msgpack bodies (`dsp.control.grants`), signed
with the same key; on gRPC the signature is metadata.
"""

from __future__ import annotations

import http.client
from typing import Any

import grpc

from dsp.base.config import LedgerConfig
from dsp.control.grants import (
    SIGNATURE,
    SYNC_MAX_BYTES,
    SYNC_METHOD,
    SyncReply,
    SyncRequest,
    SyncTransport,
    decode_reply,
    encode_request,
    sign_sync,
)

TIMEOUT_S = 2.0
_OPTIONS = [
    ("grpc.max_receive_message_length", SYNC_MAX_BYTES),
    ("grpc.max_send_message_length", SYNC_MAX_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]


def open_transport(config: LedgerConfig, key: bytes) -> SyncTransport:
    """The transport that the configuration names; ``key`` authenticates requests (`dsp.control.grants.sign_sync`)."""
    host = config.worker_host or config.host
    if config.sync_transport == "http":
        return HttpTransport(host, config.port, key)
    return GrpcTransport(host, config.grpc_port, key)


class GrpcTransport:
    """`SyncTransport` over gRPC. The channel is made by the first sync, after any fork."""

    def __init__(self, host: str, port: int, key: bytes) -> None:
        self._target, self._key = f"{host}:{port}", key
        self._channel: grpc.Channel | None = None
        self._call: Any = None

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Raises OSError when the ledger is away or refuses."""
        if self._call is None:
            self._channel = grpc.insecure_channel(self._target, _OPTIONS)
            self._call = self._channel.unary_unary(SYNC_METHOD)
        body = encode_request(request)
        try:
            answer: bytes = self._call(body, timeout=TIMEOUT_S, metadata=((SIGNATURE, sign_sync(self._key, body)),))
        except grpc.RpcError as error:
            raise OSError(f"ledger at {self._target}: {error.code().name} {error.details()}") from None
        return decode_reply(answer)

    def close(self) -> None:
        """Drop the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._call = None


class HttpTransport:
    """`SyncTransport` over HTTP/1.1, one kept-alive connection."""

    def __init__(self, host: str, port: int, key: bytes) -> None:
        self._host, self._port, self._key = host, port, key
        self._connection: http.client.HTTPConnection | None = None

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Raises OSError when the ledger is away or refuses; the next call connects anew."""
        body = encode_request(request)
        headers = {"content-type": "application/msgpack", SIGNATURE: sign_sync(self._key, body)}
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            self._connection.request("POST", "/sync", body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except http.client.HTTPException as error:
            self.close()
            raise OSError(f"ledger at {self._host}:{self._port}: {error!r}") from error
        except OSError:
            self.close()
            raise
        if response.status != 200:
            raise OSError(f"ledger refused the sync: {response.status} {answer[:200]!r}")
        return decode_reply(answer)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
