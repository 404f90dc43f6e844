"""The market's HTTP client against a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from scripted_server import Script, serving

from dsp.market.http_client import HttpClient, Reply, http_message

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"


async def _with_server(script: Script, body: Callable[[HttpClient], Awaitable[None]], **settings: float) -> None:
    async with serving(script) as port:
        client = HttpClient("127.0.0.1", port, **settings)  # type: ignore[arg-type]
        try:
            await body(client)
        finally:
            await client.close()


def _run(script: Script, body: Callable[[HttpClient], Awaitable[None]], **settings: float) -> None:
    asyncio.run(_with_server(script, body, **settings))


def test_a_reply_in_pieces_is_put_together_and_the_connection_kept() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            for k in range(0, len(OK), 7):
                writer.write(OK[k : k + 7])
                await writer.drain()
                await asyncio.sleep(0)

    async def body(client: HttpClient) -> None:
        for _ in range(5):
            reply = await client.ask(http_message("GET", "/", "h"))
            assert (reply.status, reply.body) == (200, b"hello")
            assert b"X: y" in reply.head
            assert reply.seconds > 0

    _run(script, body)
    assert connections == 1


def test_no_content_needs_no_length() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def body(client: HttpClient) -> None:
        reply: Reply = await client.ask(http_message("POST", "/bid/x", "h", "a: b\r\n", b"{}"))
        assert (reply.status, reply.body) == (204, b"")

    _run(script, body)


def test_silence_is_a_timeout_and_a_late_answer_reaches_nobody() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readuntil(b"\r\n\r\n")
        if first.startswith(b"GET /slow"):
            await reader.read()  # until the client gives up and closes
            return
        writer.write(OK)

    async def body(client: HttpClient) -> None:
        with pytest.raises(TimeoutError):
            await client.ask(http_message("GET", "/slow", "h"), 0.05)
        assert (await client.ask(http_message("GET", "/", "h"))).body == b"hello"

    _run(script, body)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_broken_reply_is_a_connection_error(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def body(client: HttpClient) -> None:
        with pytest.raises(ConnectionError):
            await client.ask(http_message("GET", "/", "h"))

    _run(script, body)


def test_connections_are_bounded_and_shared() -> None:
    together = most = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal together, most
        while await reader.readuntil(b"\r\n\r\n"):
            together += 1
            most = max(most, together)
            await asyncio.sleep(0)
            together -= 1
            writer.write(OK)

    async def body(client: HttpClient) -> None:
        replies = await asyncio.gather(*(client.ask(http_message("GET", "/", "h")) for _ in range(40)))
        assert all(reply.status == 200 for reply in replies)

    _run(script, body, connections=4)
    assert 1 <= most <= 4


def test_a_server_that_hangs_up_between_requests_is_called_again() -> None:
    hung_up = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()
        hung_up.set()

    async def body(client: HttpClient) -> None:
        for _ in range(3):
            hung_up.clear()
            assert (await client.ask(http_message("GET", "/", "h"))).status == 200
            await hung_up.wait()
            while client.idle:
                await asyncio.sleep(0)

    _run(script, body)
