"""Reading a catalog file: YAML to `types.CatalogFile`, with every problem told as "file:line: field: what is wrong".

YAML is read by the rules of 1.2's core schema (no sexagesimal numbers, no dates, only true/false as booleans), because
"22:30", "no" and "2026-01-31" mean themselves here. A node tree is kept beside the values, for the line numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import yaml

MAX_PROBLEMS = 50
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")

T = TypeVar("T")
Step = str | int
FieldPath = tuple[Step, ...]
Problem = tuple[FieldPath, str]  # path to the field, what is wrong


class CatalogError(Exception):
    """A catalog file that cannot be used. One line per problem, with file, line and field; nothing was changed."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 core scalars."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # decimal also with a leading zero; the stock one reads it as octal


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


class Source(Generic[T]):
    """A parsed file: ``value`` is the checked content, a ``kind``; `line` finds a field's line."""

    def __init__(self, path: str, text: str, kind: type[T]) -> None:
        """Parse ``text``. Raises `CatalogError` with all problems of syntax and of type."""
        self.path = path
        self._node: yaml.Node | None = None
        problems: list[Problem] = []
        data = self._parse(text, problems)
        value = _convert(data, problems, kind)
        if problems or value is None:
            self.fail(problems)
        assert value is not None
        self.value: T = value

    def _parse(self, text: str, problems: list[Problem]) -> Any:
        loader = _Loader(text)
        try:
            self._node = loader.get_single_node()
            _duplicate_keys(self._node, (), problems, set())  # before merge keys are resolved in the nodes themselves
            return loader.construct_document(self._node) if self._node is not None else {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise CatalogError(f"{self.path}:{line}: not YAML: {error.problem or error.context}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise CatalogError(f"{self.path}:1: not YAML: {error}") from None
        finally:
            loader.dispose()

    def line(self, path: FieldPath) -> int:
        """The line of the field at ``path``, or of the nearest thing around it that is written down."""
        node = self._node
        line = node.start_mark.line if node is not None else 0
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            node, line = found
        return line + 1

    def fail(self, problems: list[Problem]) -> None:
        """Raise `CatalogError` over ``problems``, in the order of their lines."""
        lines = sorted((self.line(path), _path_text(path), message) for path, message in dict.fromkeys(problems))
        shown = [f"{self.path}:{line}: {path}: {message}" for line, path, message in lines[:MAX_PROBLEMS]]
        if len(lines) > MAX_PROBLEMS:
            shown.append(f"{self.path}: and {len(lines) - MAX_PROBLEMS} more problems")
        raise CatalogError("\n".join(shown))


def read_source(path: Path, kind: type[T]) -> Source[T]:
    """Read and parse the file at ``path``. Raises `CatalogError`."""
    try:
        return Source(str(path), path.read_text(), kind)
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _path_text(path: FieldPath) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "file"


def _child(node: yaml.Node | None, step: Step) -> tuple[yaml.Node, int] | None:
    """The node at ``step`` and its line (of the key, in a mapping)."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # merged keys have been put in front of the own ones
            if key.value == str(step):
                return value, key.start_mark.line
    return None


def _duplicate_keys(node: yaml.Node | None, path: FieldPath, problems: list[Problem], seen: set[int]) -> None:
    if node is None or id(node) in seen:  # an alias is looked at once
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _duplicate_keys(value, (*path, i), problems, seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in keys:
                problems.append(((*path, name), "written twice; keep one of them"))
            keys.add(name)
            _duplicate_keys(value, (*path, name), problems, seen)


def _convert(data: Any, problems: list[Problem], kind: type[T]) -> T | None:
    """``data`` as a ``kind``. Each type error is noted, its value cut out, and the rest tried again."""
    data = _copy(data)
    cut: set[FieldPath] = set()
    gone: dict[FieldPath, list[int]] = {}
    for _ in range(4 * MAX_PROBLEMS):
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            text, _, where = str(error).partition(" - at `")
            here = tuple(name or int(index) for name, index in _STEP.findall(where.rstrip("`").removeprefix("$")))
            path = _as_written(here, gone)
            missing = re.search(r"missing required field `([^`]+)`", text)
            unknown = re.search(r"contains unknown field `([^`]+)`", text)
            if unknown:
                here, path = (*here, unknown[1]), (*path, unknown[1])
                problems.append((path, "unknown field; check the spelling, or take it out"))
            elif missing and (*path, missing[1]) not in cut:
                problems.append((path, f"{missing[1]} is missing; write {missing[1]}: ..."))
            elif not missing:  # else the field is there, and was told of already
                problems.append((path, _explain(text, path[-1] if path else "")))
            cut.add(path)
            if not _cut(data, here, path, gone):
                return None
    return None


_CHOICES = {
    "format": "banner, native or video",
    "pacing": "even, front or asap",
    "stage": "click, registered, applied, approved or funded",
    "strategy": "value or fixed",
    "special_category": "none or credit",
    "status": "active or paused",
    "auction": "first or second",
    "billable": "burl, nurl or pixel",
    "model": "current or challenger",
    "per": "minute, hour, day, week or flight",
}


def _explain(text: str, field: Step) -> str:
    """msgspec's words for a wrong type, with what to write."""
    if "Expected `str`, got `" in text and not text.endswith(("`object`", "`array`")):
        return f"{text}; put it in quotes"
    if text.startswith("Invalid enum value") and field in _CHOICES:
        return f"{text}; write {_CHOICES[str(field)]}"
    if text.startswith("Expected `array`"):
        return f"{text}; write a list, [a, b]"
    return text


def _as_written(here: FieldPath, gone: dict[FieldPath, list[int]]) -> FieldPath:
    """A path in the data that is left as the path in the file: elements cut from lists count again."""
    path: FieldPath = ()
    for step in here:
        if isinstance(step, int):
            written = step
            for cut in gone.get(path, ()):
                written += cut <= written
            path = (*path, written)
        else:
            path = (*path, step)
    return path


def _copy(data: Any) -> Any:
    """A deep copy in which aliased parts are apart, so that cutting one leaves the others; keys become text."""
    if isinstance(data, dict):
        return {str(key): _copy(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_copy(value) for value in data]
    return data


def _cut(data: Any, here: FieldPath, path: FieldPath, gone: dict[FieldPath, list[int]]) -> bool:
    """Remove what is at ``here`` (``path`` in the file). False if there is no such thing."""
    try:
        for step in here[:-1]:
            data = data[step]
        del data[here[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    last = path[-1]
    if isinstance(last, int):
        gone.setdefault(path[:-1], []).append(last)
        gone[path[:-1]].sort()
    return True
