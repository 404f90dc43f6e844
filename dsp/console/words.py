"""The pages' words in Simplified Chinese, by their English; tests find what a page says and these lack.

`zh.json` has fixed texts. `zh_errors.json` has refusals: ``{}`` of the English is what the refusal names, ``{0}`` of the
Chinese the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import msgspec

from dsp.console.errors import FieldError, Problem

_HERE = Path(__file__).parent
ZH: dict[str, str] = msgspec.json.decode((_HERE / "zh.json").read_bytes(), type=dict[str, str])
ZH_ERRORS: dict[str, str] = msgspec.json.decode((_HERE / "zh_errors.json").read_bytes(), type=dict[str, str])
_HOLE, _NUMBER = re.compile(r"\{\}"), re.compile(r"\{(\d)\}")


def translator(lang: str) -> Callable[[str], str]:
    """The function ``_`` of the pages."""
    return (lambda text: ZH.get(text, text)) if lang == "zh" else (lambda text: text)


@lru_cache(1)
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The most definite first: of two that match, the one with more fixed text."""
    found = sorted(ZH_ERRORS.items(), key=lambda item: -len(_HOLE.sub("", item[0])))
    return [(re.compile("(.*?)".join(map(re.escape, _HOLE.split(english))), re.DOTALL), zh) for english, zh in found]


@lru_cache(1024)
def refusal(text: str) -> str:
    """A refusal in Chinese; as it is where nobody has translated it."""
    for pattern, chinese in _patterns():
        match = pattern.fullmatch(text)
        if match is not None:
            named = [refusal(part) for part in match.groups()]
            return _NUMBER.sub(lambda hole, named=named: named[int(hole.group(1))], chinese)  # type: ignore[misc]
    return ZH.get(text, text)


def problem_in(lang: str, problem: Problem, named: Callable[[str], str] = str) -> Problem:
    """What went wrong, in the reader's language; ``named`` says what the reader calls a field."""
    if lang != "zh":
        return problem
    fields = [FieldError(f.field, refusal(f.message)) for f in problem.fields]
    message = "；".join(f"{named(f.field)}：{f.message}" for f in fields[:3]) if fields else refusal(problem.message)
    return Problem(problem.code, message, fields)
