"""The native gRPC server (HTTP/2 and gRPC in Rust, pygrpc-native), as the bidder and the ARTF agent use it.

Opened with threads that yield to the one that decides, health checking and reflection beside it, drained. The server
itself has no drain: a front becomes unready, serves until quiet and then closes, so that whoever still calls gets
UNAVAILABLE, which clients may retry, and connects to another worker.
"""

from __future__ import annotations

from collections.abc import Callable

from pygrpc_native import NativeGrpcFront

from dsp.ingress.grpc_side import HEALTH_CHECK, NOT_SERVING, SERVING, SideServer, service_asked
from dsp.ingress.scheduling import yielding_threads

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 3, 4, 5, 8, 16
NO_TOKEN = "unknown or missing token: send metadata authorization: Bearer <token>"
QUIET_NS = 500_000_000  # draining, nothing for so long means that nobody is left


class NativeServer:
    """One ``method`` of a ``service``: method 0 of the events that ``server`` hands out. Health checks are method 1."""

    def __init__(
        self, service: str, method: str, address: str, *, streams: int, drain_s: float, call_details: bool = False
    ) -> None:
        self.draining = False
        self._service = service
        self._drain_ns = int(drain_s * 1e9)
        self._drained_ns = 0
        with yielding_threads():
            self.server = NativeGrpcFront(
                address,
                [(method, False), (HEALTH_CHECK, False)],
                io_threads=1,
                client_key_metadata="authorization",
                call_details=call_details,
                reuse_port=True,
                max_concurrent_streams=streams,
            )
        self._side = SideServer(service)
        self.server.set_fallback(self._side.path)
        with yielding_threads():
            self.server.start()
        self.port: int = self.server.bound_port

    def health(self, call: int, request: bytes) -> None:
        """grpc.health.v1.Health/Check, answered by the thread whose health is asked."""
        asked = service_asked(request)
        if asked in ("", self._service):
            self.server.respond(call, NOT_SERVING if self.draining else SERVING)
        else:
            self.server.fail(call, NOT_FOUND, f"no service named {asked}")

    def over(self, stopping: Callable[[], bool], now_ns: int, last_ns: int, *, waiting: bool) -> bool:
        """Whether to end: once ``stopping()``, unready, until quiet since the last call at ``last_ns`` with none
        ``waiting``, or for ``drain_s``.
        """
        if self.draining:
            quiet = now_ns - max(last_ns, self._drained_ns) > QUIET_NS and not waiting
            return quiet or now_ns - self._drained_ns > self._drain_ns
        if stopping():
            self._drained_ns = now_ns
            self.draining = True
            self._side.drain()
        return False

    def close(self) -> None:
        """Stop at once."""
        self.server.close()
        self._side.close()
