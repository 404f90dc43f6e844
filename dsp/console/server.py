"""The console role: the application on Granian, and a thread that publishes what it changes.

Publishing is polled four times a second, by the same function as in `dsp serve`; a lock in the data directory lets
several processes do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading

import uvloop
from anyio.to_thread import current_default_thread_limiter
from granian.constants import Interfaces
from granian.server.embed import Server

from dsp.base.config import Config
from dsp.base.logs import logger
from dsp.catalog.publish import POLL_S, publish_if_changed
from dsp.console.app import build
from dsp.console.services import open_services

_LOG = logger(__name__)


def run_console(config: Config) -> None:
    """The console role in this process, until SIGTERM or SIGINT."""
    uvloop.run(_serve(config))


async def _serve(config: Config) -> None:
    loop = asyncio.get_running_loop()
    current_default_thread_limiter().total_tokens = config.console.threads
    stopping = threading.Event()
    publisher = threading.Thread(target=_publish, args=(config, stopping), name="publisher")
    services = open_services(config)
    server = Server(
        build(services),
        address=config.console.host,
        port=config.console.port,
        interface=Interfaces.ASGI,
        log_enabled=False,
        websockets=False,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    publisher.start()
    _LOG.info("serving", port=config.console.port)
    try:
        await server.serve()
    finally:
        stopping.set()
        publisher.join()
        services.exports.close()


def _publish(config: Config, stopping: threading.Event) -> None:
    """Publish changes; what fails is tried again."""
    while not stopping.wait(POLL_S):
        with contextlib.suppress(OSError):
            try:
                publish_if_changed(config)
            except Exception:
                _LOG.exception("the catalog could not be published")
                stopping.wait(5.0)
