"""A role's ``/metrics``: all its workers added up, and whether the role as a whole is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from dsp.base.metrics import render

TEXT = "text/plain; version=0.0.4; charset=utf-8"


LIVE, READY = ("/healthz", "/health/live"), ("/readyz", "/health/ready")  # the second ones are ARTF's names


class MetricsServer:
    """GET /metrics (``?name[]=METRIC``: that one alone), /healthz, /readyz on a thread of its own.

    Off the hot path, so the standard library's server; but it shares the workers' cores, and all of the metrics are
    some milliseconds: who wants one asks for one.
    """

    def __init__(self, host: str, port: int, directory: Path, prefix: str, ready: Callable[[], bool]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                path, _, query = self.path.partition("?")
                if path == "/metrics":
                    self._answer(200, render(directory, prefix, parse_qs(query).get("name[]", ())))
                elif path in LIVE or (path in READY and ready()):
                    self._answer(200, b"ok\n")
                elif path in READY:
                    self._answer(503, b"not ready\n")
                else:
                    self._answer(404, b"nothing here: /metrics, /healthz, /readyz\n")

            def _answer(self, status: int, text: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", TEXT)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Not a line per scrape."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
