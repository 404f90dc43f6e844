"""The targeting builder: one control per part of `dsp.catalog.types.Targeting`, and deals and caps beside them.

A control's name in the form is its path in the API (``targeting.geo.include``), so that what the API refuses is marked
where it was typed. What the controls show of a targeting and read back again is that targeting, whatever it was: what
is stored is always among the choices, also where the reader's own references lack it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsp.catalog.names import AGE_BANDS, BROWSERS, CHANNELS, CONNECTIONS, DEVICES, INCOME_BANDS, OSES
from dsp.console.errors import ApiError, invalid

Fields = Mapping[str, Sequence[str]]  # as posted: every value of a name
_CAP = re.compile(r"(\d{1,6}) per (minute|hour|day|week|flight)")


@dataclass(frozen=True)
class Control:
    """``boxes``: some of a few; ``pick``: some of the references of that name, ticked as well, for a list to
    pick from forgets what was picked at the first key; ``lines``: one a line."""

    name: str
    text: str
    kind: Literal["boxes", "pick", "lines"]
    choices: tuple[str, ...] = ()
    references: str = ""
    hint: str = ""
    example: str = ""

    @property
    def worded(self) -> bool:
        """Whether its choices are words of ours, not names or numbers."""
        return self.kind == "boxes" and not any(choice[0].isdigit() for choice in self.choices[:1])


_T = "targeting."
GROUPS: tuple[tuple[str, tuple[Control, ...]], ...] = (
    (
        "Where and when",
        (
            Control(
                _T + "geo.include",
                "Only in these places",
                "lines",
                hint="One a line:",
                example="USA, USA/CA, USA/CA/Los Angeles",
            ),
            Control(_T + "geo.exclude", "Not in these places", "lines"),
            Control(_T + "languages", "Languages of the device", "lines", hint="One a line:", example="en, zh"),
            Control(_T + "daypart", "Hours", "lines", hint="One a line:", example="mon-fri 8-12, 13:30-18"),
        ),
    ),
    (
        "On what",
        (
            Control(_T + "devices", "Devices", "boxes", tuple(DEVICES)),
            Control(_T + "os", "Operating systems", "boxes", OSES),
            Control(_T + "browsers", "Browsers", "boxes", BROWSERS),
            Control(_T + "connections", "Connections", "boxes", tuple(CONNECTIONS)),
            Control(_T + "channels", "Channels", "boxes", tuple(CHANNELS)),
        ),
    ),
    (
        "To whom",
        (
            Control(_T + "segments.include", "In one of these segments", "pick", references="segments"),
            Control(_T + "segments.exclude", "In none of these segments", "pick", references="segments"),
            Control(_T + "age", "Age", "boxes", tuple(AGE_BANDS)),
            Control(_T + "income", "Income, 1 the lowest band", "boxes", tuple(map(str, INCOME_BANDS))),
            Control("frequency", "At most so often to one person", "lines", hint="One a line:", example="3 per day"),
        ),
    ),
    (
        "Beside what",
        (
            Control(_T + "exchanges", "Only these exchanges", "pick", references="exchanges"),
            Control("deals", "Deals", "pick", references="deals"),
            Control(_T + "sites.allow", "Only these sites", "lines", hint="One domain a line"),
            Control(_T + "sites.block", "Never these sites", "lines"),
            Control(_T + "apps.allow", "Only these apps", "lines", hint="One bundle a line"),
            Control(_T + "apps.block", "Never these apps", "lines"),
            Control(_T + "publishers.allow", "Only these publishers", "lines", hint="One id a line"),
            Control(_T + "publishers.block", "Never these publishers", "lines"),
            Control(
                _T + "categories.include", "Only these content categories", "lines", hint="One a line:", example="IAB13"
            ),
            Control(_T + "categories.exclude", "Not these content categories", "lines"),
        ),
    ),
)
CONTROLS = {control.name: control for _, controls in GROUPS for control in controls}


def shown(one: Mapping[str, Any]) -> dict[str, list[str]]:
    """The values of the controls for a line item as the API shows it."""
    found = {name: _texts(name, _at(one, name)) for name in CONTROLS}
    return {name: values for name, values in found.items() if values}


def _at(one: Any, name: str) -> Any:
    for step in name.split("."):
        one = one.get(step) if isinstance(one, Mapping) else None
    return one


def _texts(name: str, value: Any) -> list[str]:
    if not value:
        return []
    if name.endswith(".daypart"):
        return [
            f"{days} {spans if isinstance(spans, str) else ', '.join(map(str, spans))}" for days, spans in value.items()
        ]
    if name == "frequency":
        return [f"{cap['cap']} per {cap['per']}" for cap in value]
    return [str(each) for each in value]


def typed(fields: Fields, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the controls say, in the API's words: ``targeting``, ``deals``, ``frequency``. Raises 422.

    A control that says what it said ``before`` (of the line item as the API shows it) leaves that to the letter, its
    order too: saving what nobody touched is no change.
    """
    body: dict[str, Any] = {"targeting": {}, "deals": [], "frequency": []}
    for name, control in CONTROLS.items():
        values = values_of(control, fields)
        if not values:
            continue
        into, last = body, name
        if "." in name:
            *steps, last = name.split(".")
            for step in steps:
                into = into.setdefault(step, {})
        into[last] = _at(before, name) if _untouched(control, values, before) else _meant(name, values)
    return body


def _untouched(control: Control, values: list[str], before: Mapping[str, Any]) -> bool:
    was = values_of(control, {control.name: _texts(control.name, _at(before, control.name))})
    return values == was if control.kind == "lines" else sorted(values) == sorted(was)


def values_of(control: Control, fields: Fields) -> list[str]:
    """The values of one control: ticked, picked, or a line each."""
    given = fields.get(control.name, ())
    if control.kind == "lines":
        return [line.strip() for text in given for line in text.splitlines() if line.strip()]
    return [value for value in given if value]


def _meant(name: str, values: list[str]) -> Any:
    if name.endswith(".daypart"):
        return _daypart(values)
    if name.endswith(".income"):
        return [int(value) if value.isascii() and value.isdecimal() else value for value in values]
    if name == "frequency":
        caps = [_CAP.fullmatch(" ".join(value.split())) for value in values]
        if None in caps:
            raise invalid("frequency", f"{values[caps.index(None)]!r} is not a cap; write 3 per day")
        return [{"cap": int(cap[1]), "per": cap[2]} for cap in caps if cap]
    return values


def _daypart(lines: list[str]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for line in lines:
        days, _, spans = line.partition(" ")
        found.setdefault(days, []).extend(span.strip() for span in spans.split(","))
    return {days: spans[0] if len(spans) == 1 else spans for days, spans in found.items()}


def named(path: str) -> str:
    """The control that a field of the API ("targeting.geo.include.0") is typed in, "" for none."""
    for name in CONTROLS:
        if f"{path}.".startswith(f"{name}.") or (path.startswith("targeting") and name.startswith(f"{path}.")):
            return name
    return ""


def wrong(error: ApiError) -> dict[str, str]:
    """What is wrong, by control; what isn't of a control isn't here."""
    found: dict[str, str] = {}
    for field in error.problem.fields:
        name = named(field.field)
        if name:
            found.setdefault(name, field.message)
    return found


@dataclass(frozen=True)
class Shown:
    """A control with its values, and what may be chosen."""

    control: Control
    values: list[str]
    choices: list[str]


def groups(fields: Fields, references: Mapping[str, Sequence[Mapping[str, str]]]) -> list[tuple[str, list[Shown], int]]:
    """The groups as a page shows them; with how many of the controls of each are in use."""
    found = []
    for title, controls in GROUPS:
        each = []
        for control in controls:
            values = values_of(control, fields)
            known = [row["name"] for row in references.get(control.references, ())] or list(control.choices)
            each.append(Shown(control, values, known + [v for v in values if v not in known]))
        found.append((title, each, sum(bool(one.values) for one in each)))
    return found
