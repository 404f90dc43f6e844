"""A server whose connections are handled by a test's script, and surely over when it is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[int]:
    """The port of a server that runs ``script`` for each connection; close the clients before leaving."""
    over: list[asyncio.Event] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.Event()
        over.append(done)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
                await script(reader, writer)
        finally:
            writer.close()
            done.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for done in over:
            await done.wait()
        await asyncio.sleep(0)
