"""Logs: one JSON object a line with fields, sampled by kind, and nothing in them that stands for a person."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsp.base.config import LogsConfig
from dsp.base.logs import KINDS_MAX, TEXT_MAX, Sampler, logger, scrub, start_logging

JSON = LogsConfig(format="json")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, and the process's logging as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield io.StringIO()
        logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_fields(written: io.StringIO) -> None:
    start_logging(JSON, "bidder", "http0", written)
    logger("dsp.x").warning("a worker ended", status=1, again_s=0.25, which="grpc0")
    logging.getLogger("vendor").error("%d of %s", 3, "them")  # a library that knows nothing of us
    logger("dsp.x").debug("not of interest")
    ours, theirs = lines(written)
    assert ours["event"] == "a worker ended"
    assert (ours["role"], ours["worker"], ours["level"]) == ("bidder", "http0", "warning")
    assert (ours["status"], ours["again_s"], ours["which"]) == (1, 0.25, "grpc0")
    assert ours["ts"].endswith("Z")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("3 of them", "vendor", "error")


def test_an_error_brings_its_traceback_and_a_warning_its_place(written: io.StringIO) -> None:
    start_logging(JSON, "ledger", stream=written)
    try:
        raise ValueError("of ifa 6D92078A-8246-4BA4-AE5B-76104861E7DC")
    except ValueError:
        logger("dsp.x").exception("the engine failed on a batch", requests=7)
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    failed, warned = lines(written)
    assert "Traceback" in failed["exception"]
    assert "ValueError: of ifa <uuid>" in failed["exception"]
    assert failed["requests"] == 7
    assert "DeprecationWarning: old" in warned["event"]


def test_on_a_terminal_it_is_text_and_else_json(written: io.StringIO) -> None:
    written.isatty = lambda: True  # type: ignore[method-assign]
    start_logging(LogsConfig(), "console", stream=written)
    logger("dsp.x").info("published", snapshot="000002.snap")
    text = written.getvalue()
    assert "published" in text
    assert "snapshot=000002.snap" in text
    assert not text.startswith("{")


def test_a_flood_of_one_kind_is_sampled_and_counted() -> None:
    now = 0.0
    sampler = Sampler(burst=3, sample=10, clock_s=lambda: now)

    def say(words: str, times: int) -> list[int]:
        records = [logging.LogRecord("x", logging.ERROR, "f", 1, words, (), None) for _ in range(times)]
        return [getattr(record, "left_out", 0) for record in records if sampler.filter(record)]

    assert say("failed", 33) == [0, 0, 0, 9, 9, 9]
    assert say("failed", 5) == []
    assert say("another", 1) == [0], "a flood of one kind does not silence another"
    now = 61.0
    assert say("failed", 2) == [5, 0], "a new minute, and what was left out at the end of the last"
    flood = sum(len(say(f"kind {k}", 1)) for k in range(3 * KINDS_MAX))
    assert flood < 1.3 * KINDS_MAX, "words that are never the same are one kind in the end"


PEOPLE = (
    "6d92078a-8246-4ba4-ae5b-76104861e7dc",
    "6D92078A-8246-4BA4-AE5B-76104861E7DC",
    "d41d8cd98f00b204e9800998ecf8427e",
    "490154203237518",
    "203.0.113.77",
    "3c:22:fb:7a:9e:01",
    "2001:db8:85a3:0:0:8a2e:370:7334",
    "2001:db8::7334:1",
    "li.wei+loans@example.com",
    "hunter2",
)


@pytest.mark.parametrize("who", PEOPLE[:-1])
@pytest.mark.parametrize("around", ["of {} there", "id={}", "'{}'", '{{"ifa":"{}"}}', "/n?u={}&x=1"])
def test_what_stands_for_a_person_is_not_in_a_line(who: str, around: str) -> None:
    assert who not in scrub(around.format(who))
    assert who[-8:] not in scrub(around.format(who))


def test_passwords_tokens_and_parameters_of_statements_are_left_out() -> None:
    text = scrub("postgresql://dsp:hunter2@10.0.0.7/dsp refused\n(sqlite3.E) [SQL: x]\n[parameters: ('Li Wei', 7)]")
    assert "hunter2" not in text
    assert "Li Wei" not in text
    assert "10.0.0.7" in text, "addresses of our own nets tell nothing of a person and help"
    assert scrub(f"/n/{'aZ3_' * 20}?p=1") == "/n/<token>?p=1"


@given(st.text())
def test_scrubbing_never_fails_and_bounds_what_is_written(text: str) -> None:
    assert len(scrub(text)) <= max(TEXT_MAX + 5, 0) or len(scrub(text)) < 4 * len(text)
    assert (
        scrub("a worker ended: 127.0.0.1:8090, status -9, 0.25 s")
        == "a worker ended: 127.0.0.1:8090, status -9, 0.25 s"
    )


START = (
    "from dsp.base.config import LogsConfig; from dsp.base.logs import start_logging; start_logging(LogsConfig(), 'r')"
)
THREAD = "import threading; w = threading.Thread(target=lambda: int('x@y.org')); w.start(); w.join()"


@pytest.mark.parametrize("dies", ["raise ValueError('x@y.org')", THREAD])
def test_a_death_is_a_line_too(dies: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{START}\n{dies}"], capture_output=True, text=True, check=False)
    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert line["level"] == "critical"
    assert "Error" in line["exception"]
    assert "x@y" not in line["exception"]
