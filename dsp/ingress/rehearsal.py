"""A front's first requests, sent by itself before anybody else can: what is slow only once is slow then.

A worker's first request would otherwise pay for what neither compiling nor touching arrays reaches: the first call
through the HTTP or gRPC library, its threads, buffers and lazily made types. So before the real front listens, one of
the same kind serves on a free port of loopback, on the same engine, and is sent sample requests in every exchange's
name. The engine rehearses meanwhile (`Decider.rehearsing`), and the front counts into metrics that nobody reads, so
nothing of it is left in books, logs, metrics or experiments.

What has been fast once is slow again after a pause of milliseconds, when others have had the core's caches: four
times as slow after twenty. So a new worker goes on sending itself a sample request, soon after the last answer, until
the first real one comes, for `FRESH_S` at the most (`Warmth`); that takes 0.4 of a core over gRPC and 0.6 over HTTP,
which would idle. They take the whole way, through the kernel's sockets and the front's threads: deciding alone left it
cold.

A rehearsal that fails costs the first callers some milliseconds, nothing else: it is logged, and the worker serves.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import msgspec

from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.base.metrics import Metrics
from dsp.bidder.warm import warm_bodies
from dsp.ingress.decider import Decider
from dsp.ingress.grpc_side import BID
from dsp.ingress.h2wire import header_block, preface, request_frames
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

log = logger(__name__)

HOST = "127.0.0.1"
ROUNDS = 6  # of every sample request, by each of at most MOST exchanges
MOST = 4
TIMEOUT_S = 5.0
FRESH_S = 10.0
_TYPES = {FMT_JSON: "application/json", FMT_PROTOBUF: "application/x-protobuf"}


def rehearse(kind: str, open_front: Callable[..., Any], config: Config, engine: Decider) -> int:
    """Serve a front's sample requests, then close it; how many were answered.

    ``open_front`` (config, engine, metrics) opens a front of ``kind`` ("http" or "grpc").
    """
    calling = {"http": _call_http, "grpc": _call_grpc}[kind]
    settings = msgspec.structs.replace(
        config.bidder, http_host=HOST, http_port=0, grpc_host=HOST, grpc_port=0, drain_s=0.0, snapshot_poll_s=1e6
    )
    done = threading.Event()
    answered = [0]
    with engine.rehearsing() as exchanges:
        if not exchanges:
            return 0
        try:
            front = open_front(msgspec.structs.replace(config, bidder=settings), engine, Metrics.memory("rehearsal"))

            def call() -> None:
                try:
                    answered[0] = calling(front.port, engine, exchanges[:MOST])
                except (OSError, http.client.HTTPException, grpc.RpcError) as error:
                    log.warning("the rehearsal failed; the first requests may be slow", why=str(error)[:200])
                finally:
                    done.set()

            threading.Thread(target=call, name="rehearsal", daemon=True).start()
            front.run(done.is_set)
        except Exception:  # a worker that could serve must not die of it
            log.exception("the rehearsal failed; the first requests may be slow")
    return answered[0]


class Warmth:
    """Keeps a new worker at full speed until its first request comes: sample requests, through the front itself.

    A front knows them by what nobody else has: ``secret`` is the last part of the path over HTTP, ``key`` is the
    authorization over gRPC.
    It sends and receives when it likes, from any thread, and has what arrives answered by `rehearse`.
    """

    def __init__(self, engine: Decider, fmt: int, host: str, port: int) -> None:
        self.secret = secrets.token_urlsafe(24)
        self.key = f"Bearer {self.secret}".encode()
        self._engine = engine
        bodies, formats = warm_bodies(1)
        self._bodies = [body for body, each in zip(bodies, formats, strict=True) if each == fmt]
        self._write = self._http if fmt == FMT_JSON else self._grpc
        self._block = header_block("localhost", BID, [("authorization", self.key.decode())])
        self._turn = 0
        self._end_s = time.monotonic() + FRESH_S
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.create_connection((host.strip("[]"), port), TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if fmt == FMT_PROTOBUF:
                self._socket.sendall(preface())
        except OSError as error:
            self._failed(error)

    def over(self) -> bool:
        """Whether it has lasted long enough, or went wrong."""
        return time.monotonic() > self._end_s

    def send(self) -> None:
        """Send the next sample request."""
        body = self._bodies[self._turn % len(self._bodies)]
        request = self._write(body)
        self._turn += 1
        self._call(lambda connection: connection.sendall(request))

    def receive(self, flags: int = 0) -> None:
        """Wait for an answer, or with MSG_DONTWAIT take what there is."""
        self._call(lambda connection: connection.recv(1 << 16, flags))

    def rehearse(self, answer: Callable[[], object]) -> None:
        """Have sample requests answered without a trace. On the thread that decides."""
        try:
            with self._engine.rehearsing() as exchanges:
                if exchanges:
                    answer()
        except Exception as error:
            self._failed(error)

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _call(self, call: Callable[[socket.socket], object]) -> None:
        if self._socket is not None:
            try:
                call(self._socket)
            except BlockingIOError:
                pass  # nothing there yet
            except OSError as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        log.warning("a rehearsal failed; the first requests may be slow", why=repr(error)[:200])
        self._end_s = 0.0

    def _http(self, body: bytes) -> bytes:
        head = f"POST /bid/{self.secret} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {_TYPES[FMT_JSON]}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def _grpc(self, body: bytes) -> bytes:
        return request_frames(self._block, body, 2 * self._turn + 1)


def _call_http(port: int, engine: Decider, exchanges: Sequence[str]) -> int:
    bodies, formats = warm_bodies(ROUNDS)
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    answered = 0
    try:
        for exchange in exchanges:
            index = engine.exchange_of(exchange)
            headers = {"authorization": f"Bearer {engine.exchange_token(index)}"}
            name, _, value = engine.exchange_callers(index)[0].partition(":")
            if name:
                headers[name.strip()] = value.strip()
            for body, fmt in zip(bodies, formats, strict=True):
                connection.request("POST", f"/bid/{exchange}", body, headers | {"content-type": _TYPES[fmt]})
                response = connection.getresponse()
                response.read()
                answered += response.status in (200, 204)
    finally:
        connection.close()
    return answered


def _call_grpc(port: int, engine: Decider, exchanges: Sequence[str]) -> int:
    bodies, formats = warm_bodies(ROUNDS)
    answered = 0
    with grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        bid = channel.unary_unary(BID)
        for exchange in exchanges:
            token = engine.exchange_token(engine.exchange_of(exchange))
            if not token:  # over gRPC an exchange is known by its token
                continue
            for body, fmt in zip(bodies, formats, strict=True):
                if fmt == FMT_PROTOBUF:
                    bid(body, metadata=(("authorization", f"Bearer {token}"),), timeout=TIMEOUT_S)
                    answered += 1
    return answered
