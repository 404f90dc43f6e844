"""The console role: the application on Granian, and a thread that publishes what it changes.

Publishing is polled four times a second, by the same function as in `dsp serve`; a lock in the data directory lets
several processes do it. /metrics is on a port of its own: the edge, and so the public, reaches the pages' port alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable

import uvloop
from anyio.to_thread import current_default_thread_limiter
from granian.constants import Interfaces
from granian.server.embed import Server

from dsp.base.config import Config
from dsp.base.console_metrics import ConsoleMetrics
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
    metrics = ConsoleMetrics()
    publisher = threading.Thread(target=_publish, args=(config, stopping, metrics), name="publisher")
    services = open_services(config, metrics=metrics)
    server = Server(
        build(services, metrics),
        address=config.console.host,
        port=config.console.port,
        interface=Interfaces.ASGI,
        log_enabled=False,
        websockets=False,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    close_metrics = _serve_metrics(config, metrics)
    publisher.start()
    _LOG.info("serving", port=config.console.port)
    try:
        await server.serve()
    finally:
        stopping.set()
        publisher.join()
        services.exports.close()
        close_metrics()


def _serve_metrics(config: Config, metrics: ConsoleMetrics) -> Callable[[], None]:
    """/metrics, where its port is set; what closes it."""
    port = config.console.metrics_port
    if not port:
        return lambda: None
    try:
        return metrics.serve(config.console.host, port)
    except OSError as error:
        raise SystemExit(
            f"the console's /metrics can't listen on {config.console.host}:{port} ({error.strerror}); "
            "set console.metrics_port to a free port, or to 0 for none"
        ) from None


def _publish(config: Config, stopping: threading.Event, metrics: ConsoleMetrics) -> None:
    """Publish changes; what fails is tried again."""
    while not stopping.wait(POLL_S):
        with contextlib.suppress(OSError):
            began = metrics.now()
            try:
                metrics.published(began if publish_if_changed(config) is not None else None)
            except Exception:
                metrics.publish_failed()
                _LOG.exception("the catalog could not be published")
                stopping.wait(5.0)
