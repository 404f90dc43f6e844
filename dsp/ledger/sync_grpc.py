"""Workers' syncs over gRPC, on the ledger's own event loop: ``/dsp.v1.Ledger/Sync``, msgpack in, msgpack out.

Bodies stay msgpack with packed rows because that is what both ends compute with; gRPC gives deadlines, one connection
for many workers behind a proxy, and a status for every refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from dsp.control.grants import SIGNATURE, SYNC_MAX_BYTES, SYNC_METHOD
from dsp.ledger.notices import RefusedError
from dsp.ledger.writer import UnavailableError

_STATUS = {400: grpc.StatusCode.INVALID_ARGUMENT, 403: grpc.StatusCode.PERMISSION_DENIED}
DRAIN_S = 1.0


def sync_server(address: str, sync: Callable[[bytes, str], Awaitable[bytes]]) -> grpc.aio.Server:
    """A server that answers with what ``sync(body, signature)`` says. Raises RuntimeError when the port is taken."""

    async def handle(body: bytes, context: Any) -> bytes:
        signature = next((value for key, value in context.invocation_metadata() if key == SIGNATURE), "")
        try:
            return await sync(body, str(signature))
        except RefusedError as refusal:
            code = _STATUS.get(refusal.status, grpc.StatusCode.FAILED_PRECONDITION)
            await context.abort(code, refusal.text)
        except UnavailableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("abort always raises")

    service, _, method = SYNC_METHOD[1:].partition("/")
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", SYNC_MAX_BYTES),
            ("grpc.max_send_message_length", SYNC_MAX_BYTES),
            ("grpc.so_reuseport", 0),
        ]
    )
    handlers = {method: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    return server
