"""The pages' words in Simplified Chinese, by their English (`zh.json`); a test finds what a page says and this lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

ZH: dict[str, str] = msgspec.json.decode((Path(__file__).parent / "zh.json").read_bytes(), type=dict[str, str])


def translator(lang: str) -> Callable[[str], str]:
    """The function ``_`` of the pages."""
    return (lambda text: ZH.get(text, text)) if lang == "zh" else (lambda text: text)
