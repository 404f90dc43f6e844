"""A front's first requests, sent by itself before anybody else can: what is slow only once is slow then.

A worker's first request would otherwise pay for what neither compiling nor touching arrays reaches: the first call
through the HTTP or gRPC library, its threads, buffers and lazily made types. So before the real front listens, one of
the same kind serves on a free port of loopback, on the same engine, and is sent sample requests in every exchange's
name. The engine rehearses meanwhile (`Decider.rehearsing`), and the front counts into metrics that nobody reads, so
nothing of it is left in books, logs, metrics or experiments.

What has been fast once is slow again after a pause of milliseconds, when others have had the core's caches: four
times as slow after twenty. So a new worker goes on deciding a sample request every `PAUSE_S` until the first real one
comes, for `FRESH_S` at the most (`Warmth`); that takes about a fifth of a core that would idle.

A rehearsal that fails costs the first callers some milliseconds, nothing else: it is logged, and the worker serves.
"""

from __future__ import annotations

import contextlib
import http.client
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
from dsp.openrtb.columns import FMT_JSON, FMT_PROTOBUF

log = logger(__name__)

HOST = "127.0.0.1"
ROUNDS = 6  # of every sample request, by each of at most MOST exchanges
MOST = 4
TIMEOUT_S = 5.0
PAUSE_S, FRESH_S = 0.002, 10.0
PING_S = 0.2
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
    """Keeps a new worker at full speed until its first request comes; its front decides when to call what.

    ``address``: where the front serves HTTP, to be asked for its health as well; None for another kind.
    """

    def __init__(self, engine: Decider, fmt: int, address: tuple[str, int] | None = None) -> None:
        self._engine, self._fmt = engine, fmt
        bodies, formats = warm_bodies(1)
        self._bodies = [body for body, each in zip(bodies, formats, strict=True) if each == fmt]
        self._turn = 0
        self._end_s = time.monotonic() + FRESH_S
        self._socket: socket.socket | None = None
        if address is not None:
            with contextlib.suppress(OSError):
                self._socket = socket.create_connection(address, PING_S)

    def over(self) -> bool:
        """Whether it has lasted long enough."""
        return time.monotonic() > self._end_s

    def rehearse(self) -> None:
        """Decide one sample request without a trace. On the thread that decides, or under its lock."""
        self._turn += 1
        body = self._bodies[self._turn % len(self._bodies)]
        try:
            with self._engine.rehearsing() as exchanges:
                if exchanges:
                    self._engine.decide([body], [self._fmt], [0], [time.monotonic_ns()], self._fmt == FMT_PROTOBUF)
        except Exception:
            log.exception("a rehearsal failed; the first requests may be slow")
            self._end_s = 0.0

    def ask(self) -> None:
        """Ask the front for its health. Not under a lock that it may wait for."""
        if self._socket is not None:
            try:
                self._socket.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                self._socket.recv(4096)
            except OSError:
                self.close()

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


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
