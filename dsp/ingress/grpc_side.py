"""What gRPC clients expect beside the service itself: health checking and reflection, by grpcio's own servicers.

Behind the native front these run in a grpcio server on a Unix socket (`SideServer`); the grpcio front adds them to
itself. They cost nothing until somebody calls them.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dsp.pb.dsp.v1 import bidder_pb2

SERVICE = "dsp.v1.Bidder"
BID = f"/{SERVICE}/Bid"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
NOT_SERVING = b"\x08\x02"
assert bidder_pb2.DESCRIPTOR.services_by_name["Bidder"].full_name == SERVICE


class SideServices:
    """Health (Check, Watch) and reflection, added to a grpcio server."""

    def __init__(self, server: Any, service: str = SERVICE) -> None:
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=futures.ThreadPoolExecutor(1)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        for name in ("", service):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def drain(self) -> None:
        """Say NOT_SERVING from now on, to watchers too."""
        self._health.enter_graceful_shutdown()


class SideServer:
    """`SideServices` of a ``service`` on a Unix socket, for the native front to pass on what it does not serve."""

    def __init__(self, service: str = SERVICE) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="dsp-"))  # short: a socket's path has at most 107 bytes
        self.path = str(self._directory / "side.sock")
        self._server = grpc.server(futures.ThreadPoolExecutor(4), maximum_concurrent_rpcs=64)
        self._services = SideServices(self._server, service)
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._services.drain()

    def close(self) -> None:
        """Stop at once."""
        self._server.stop(None).wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def service_asked(request: bytes) -> str | None:
    """The service a HealthCheckRequest names, None where the bytes are not one."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(request).service)
    except Exception:  # protobuf's DecodeError has no public home
        return None
