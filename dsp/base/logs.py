"""What a role says about itself: one JSON object a line on stderr, sampled, without personal data.

Invariant: no line holds an identifier of a person, whatever an error's text contains (`scrub`), and no fault can fill a
disk: of the lines of one kind, `LogsConfig.burst` a minute are written, then one in `LogsConfig.sample`, and the next
line written says how many were left out. A kind is a logger and its unformatted words, so fields stay out of the words:
``log.error("worker ended", status=1)``. Nothing is logged per request.

Loggers are the standard library's, so what libraries say takes the same way; structlog adds fields and the rendering.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from dsp.base.config import LogsConfig

MINUTE_S = 60.0
KINDS_MAX = 1_000  # kinds told apart within a minute; a flood of new ones is one kind
TEXT_MAX = 8_000  # characters of one field

_OURS = tuple(
    ip_network(net)
    for net in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "0.0.0.0/32",
        "::1",
        "::",
        "fc00::/7",
        "fe80::/10",
    )
)
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*[0-9a-f:])(?![\w:])", re.IGNORECASE
)
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\[parameters: .*", re.DOTALL), "[parameters left out]"),  # of SQL statements
    (re.compile(r"(\w+://[^\s:/@]+):[^\s@]+@"), r"\1:<password>@"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "<email>"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b[0-9a-f]{16,}\b", re.IGNORECASE), "<hex>"),  # hashed ids; 15 digits and more are an IMEI, or hex
    (re.compile(r"\b\d{15,19}\b"), "<number>"),
    (re.compile(r"[A-Za-z0-9_+-]{48,}={0,2}"), "<token>"),
    (re.compile(r"\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b", re.IGNORECASE), "<mac>"),
)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose methods take fields: ``log.warning("waiting", why=text)``; a field may not be called ``name``."""
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


def start_logging(config: LogsConfig, role: str, worker: str = "", stream: TextIO | None = None) -> None:
    """Have everything this process logs, warns of or dies of written to ``stream`` (stderr) as the module says."""
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    as_json = config.format == "json" or (config.format == "auto" and not stream.isatty())
    handler.setFormatter(
        _formatter(as_json, {"role": role, **({"worker": worker} if worker else {}), "pid": os.getpid()})
    )
    handler.addFilter(Sampler(config.burst, config.sample))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(config)
    logging.captureWarnings(True)
    sys.excepthook = _died
    threading.excepthook = _thread_died


def set_level(config: LogsConfig) -> None:
    """Take over another level while running."""
    logging.getLogger().setLevel(config.level.upper())
    for chatty in ("httpx", "httpcore", "asyncio", "alembic"):  # their INFO is a line per request or start
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


class Sampler(logging.Filter):
    """Lets ``burst`` lines of one kind a minute through, then one in ``sample`` (0: none)."""

    def __init__(self, burst: int, sample: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst, self._sample, self._clock_s = burst, sample, clock_s
        self._until_s = 0.0
        self._seen: dict[tuple[str, str], int] = {}
        self._left_out: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written; one that is carries ``left_out``, where lines before it were not."""
        kind = (record.name, str(record.msg))
        with self._lock:
            now_s = self._clock_s()
            if now_s >= self._until_s:
                self._until_s = now_s + MINUTE_S
                self._seen.clear()
            if kind not in self._seen and len(self._seen) >= KINDS_MAX:
                kind = ("", "")
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen > self._burst and not (self._sample and (seen - self._burst) % self._sample == 0):
                if kind in self._left_out or len(self._left_out) < KINDS_MAX:
                    self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return False
            left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.left_out = left_out
        return True


def scrub(text: str) -> str:
    """``text`` without what may stand for a person or open a door: addresses outside private nets, ids, tokens."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    text = _ADDRESS.sub(_address, text)
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "… cut"


def _address(match: re.Match[str]) -> str:
    try:
        address = ip_address(match.group())
    except ValueError:  # a time, a slice, a version
        return match.group()
    return match.group() if any(address in net for net in _OURS) else "<ip>"


def _formatter(as_json: bool, fixed: dict[str, Any]) -> logging.Formatter:
    def complete(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        head = {"ts": event.pop("ts"), "level": event.pop("level"), **fixed, "logger": event.pop("logger")}
        return {**head, "event": event.pop("event"), **event}

    def clean(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {
            name: value if isinstance(value, int | float | None) else scrub(str(value)) for name, value in event.items()
        }

    render: Any = (
        structlog.processors.JSONRenderer(serializer=lambda event, **_: msgspec.json.encode(event).decode())
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False, timestamp_key="ts", pad_event_to=0)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            clean,
            complete,
            render,
        ],
    )


def _died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("dsp").critical("the process ends by an error", exc_info=(kind, error, trace))


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    told = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("dsp").critical("a thread ends by an error", exc_info=told)
