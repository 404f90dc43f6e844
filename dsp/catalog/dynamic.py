"""Dynamic creatives: a template and its parts become ordinary ads, one per combination of approved parts.

Whatever is combined here is all that can ever be served: nothing is put together while a request waits, every ad has an
id, its own figures and its own line in the books, and a part that loses its approval takes all its ads with it (they
are archived, and come back under the same ids with the approval). What a part says about its circumstances becomes the
conditions of its ads; fields of the offer ("{rate}") are filled in when a snapshot is compiled, so that a new rate is
in every ad at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import msgspec

from dsp.catalog.types import KINDS_OF_PARTS, Creative, Dynamic, Part, Targeting

MAX_COMBINATIONS = 64  # of one template, in each size
_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TEXTS = ("headline", "text", "cta", "disclosure")


def approved(dynamic: Dynamic, kind: str) -> list[Part]:
    """The parts of ``kind`` that may be served."""
    return [part for part in getattr(dynamic, kind) if part.status == "approved"]


def combinations(creative: Creative) -> int:
    """How many ads a template makes in each size; an ordinary ad makes one."""
    count = 1
    if creative.dynamic is not None:
        for kind in KINDS_OF_PARTS:
            if getattr(creative.dynamic, kind):
                count *= len(approved(creative.dynamic, kind))
    return count


def expand(creative: Creative) -> Iterator[Creative]:
    """The ads of a template; an ordinary ad is the only one of itself."""
    if creative.dynamic is None:
        yield creative
        return
    kinds = [kind for kind in KINDS_OF_PARTS if getattr(creative.dynamic, kind)]
    for parts in product(*(approved(creative.dynamic, kind) for kind in kinds)):
        chosen = dict(zip(kinds, parts, strict=True))
        conditions = tuple(part.when for part in parts if part.when != Targeting())
        yield _with_texts(
            msgspec.structs.replace(
                creative,
                name=f"{creative.name} [{'/'.join(part.name for part in parts)}]",
                dynamic=None,
                parts={kind: part.name for kind, part in chosen.items()},
                when=(*creative.when, *conditions),
            ),
            {kind: part.text for kind, part in chosen.items()},
        )


def _with_texts(creative: Creative, texts: Mapping[str, str]) -> Creative:
    """Put the parts' texts where the format has them."""
    if creative.native is None:
        return msgspec.structs.replace(creative, **texts)
    native: dict[str, Any] = {
        {"headline": "title", "text": "desc", "cta": "cta"}[k]: v for k, v in texts.items() if k != "image"
    }
    if "image" in texts and creative.native.image is not None:
        native["image"] = msgspec.structs.replace(creative.native.image, url=texts["image"])
    return msgspec.structs.replace(creative, native=msgspec.structs.replace(creative.native, **native))


def fields_of(creative: Creative) -> set[str]:
    """Names of the offer's facts that the ad's texts ask for; only those of templates do."""
    if creative.dynamic is None and not creative.parts:
        return set()
    texts = [getattr(creative, name) for name in _TEXTS]
    if creative.native is not None:
        texts += [creative.native.title, creative.native.desc, creative.native.cta]
    if creative.dynamic is not None:
        texts += [part.text for kind in KINDS_OF_PARTS if kind != "image" for part in approved(creative.dynamic, kind)]
    return {name for text in texts for name in _FIELD.findall(text)}


def filled(creative: Creative, facts: Mapping[str, str]) -> Creative | None:
    """The ad with the offer's facts in its texts; None where one is missing, as half a sentence is worse than no ad."""
    wanted = fields_of(creative)
    if not wanted:
        return creative
    if not wanted <= facts.keys():
        return None

    def fill(text: str) -> str:
        return _FIELD.sub(lambda match: facts[match[1]], text)

    out = msgspec.structs.replace(creative, **{name: fill(getattr(creative, name)) for name in _TEXTS})
    if out.native is not None:
        texts = {name: fill(getattr(out.native, name)) for name in ("title", "desc", "cta")}
        out = msgspec.structs.replace(out, native=msgspec.structs.replace(out.native, **texts))
    return out
