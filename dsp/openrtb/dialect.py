"""An exchange's dialect of OpenRTB as data: where it puts fields, which values it writes for ours, in which unit.

A dialect is compiled once per snapshot into a *block* of int64 words. The walkers look a key up in it when the standard
schema doesn't know the key (or first, where the dialect gives a known key another meaning), so moving a field costs a
request nothing but the look-up: its value is stored by the standard row it stands for.

    block    quirks | mask | number of values | floor unit: numerator, denominator | floor currency |
             words of entries | number of seats | entries | values | seats
    entry    context << 8 | key length (255: a protobuf number) | first, middle, last eight bytes of the key | row
    value    column | value on the wire | value we know
    seat     the exchange's | ours

Paths are dotted from the request, "imp.ext.rp.floor"; "user.#1007.#2" are protobuf field numbers. An object that the
schema doesn't know is read in one of its spare contexts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import numba as nb
import numpy as np

from dsp.base.memory import at, at_u64, peek64, put, signed
from dsp.openrtb import columns as c
from dsp.openrtb import record as r
from dsp.openrtb import schema as s
from dsp.openrtb.hashing import hash_text

Q_FIRST = 1  # the dialect redefines a known key: look there first
Q_NUMERIC_IDS = 2  # ids may be numbers
Q_LENIENT = 4  # a value of the wrong type is absent, not an error
NUMBER_KEY = 255
MAX_KEY = 24
_HEAD = 8
_ENTRY = 5
_VALUE = 3
_MIX = np.uint64(0x9E3779B97F4A7C15)
_IMP, _DEAL = "imp", "imp.pmp.deals"


class DialectError(ValueError):
    """A dialect that can't be; the message names the field and what is wrong with it, ``path`` leads to it."""

    path: tuple[str, ...] = ()


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an exchange's requests differ from OpenRTB 2.6."""

    fields: dict[str, str] = {}  # path in its requests -> path of OpenRTB that it stands for
    values: dict[str, dict[str, str | int]] = {}  # path of OpenRTB -> {value it sends: value of OpenRTB}
    defaults: dict[str, str | int] = {}  # path of OpenRTB -> value where it sends none
    floor_unit: str = "1"  # what a floor of 1 is, in whole units of currency per thousand: "0.01" cents, "0.000001"
    floor_currency: str = ""  # of floors without one; "" US dollars, as OpenRTB says
    numeric_ids: bool = False  # request, imp and deal ids may come as numbers; they are echoed as text
    lenient: bool = False  # what has the wrong type is ignored, where OpenRTB would refuse the request


STANDARD = Dialect()
I64 = c.I64


def _context(name: str) -> int:
    return s.CONTEXTS.index(name)


def _standard(path: str) -> tuple[int, str]:
    """The row of a path of OpenRTB, and the context it stands in. Raises `DialectError`."""
    context, row = "request", 0
    for step in path.split("."):
        row = next((k for k, (name, f) in enumerate(s.ROWS) if name == context and f.key == step), 0)
        if row == 0:
            raise DialectError(f"{path}: is no field of OpenRTB that the bidder reads (at {step!r})")
        inside, context = context, s.ROWS[row][1].context or "?"
    return row, inside


def _level(name: str) -> str:
    """The table a context belongs to: the request's, the imp's or the deal's."""
    return _DEAL if name.startswith(_DEAL) else _IMP if name.split(".", maxsplit=1)[0] == _IMP else "request"


def _key_words(key: bytes) -> tuple[int, int, int]:
    if len(key) > MAX_KEY:
        raise DialectError(f"{key.decode()}: is longer than {MAX_KEY} bytes")
    first = int.from_bytes(key[:8], "little")
    middle = int.from_bytes(key[8:16], "little") if len(key) > 16 else 0
    return first, middle, int.from_bytes(key[-8:], "little") if len(key) > 8 else 0


def _slot(packed: int, words: tuple[int, int, int], mask: int) -> int:
    """Where a key is looked for first; the kernel computes the same."""
    mixed = (words[0] ^ (words[1] >> 1) ^ (words[2] >> 3) ^ packed << 32) & (1 << 64) - 1
    return (mixed * int(_MIX) & (1 << 64) - 1) >> 40 & mask


class _Entries:
    """The keys of one dialect."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, tuple[int, int, int]], int] = {}
        self.first = False

    def add(self, path: str, target: str) -> None:
        """Make ``path`` stand for ``target``."""
        row, inside = _standard(target)
        steps = path.split(".")
        context, level = _context("request"), "request"
        for step in steps[:-1]:
            key = self._key(context, step)
            known = self._known(context, step)
            if known and s.ROWS[known][1].context:
                name = s.ROWS[known][1].context
                context, level = _context(name), _level(name)
            elif known:
                raise DialectError(f"{path}: {step} is no object")
            else:
                context = self._spare(path, key)
        if level != _level(inside):
            raise DialectError(f"{path}: stands for {target}, which belongs to another level ({inside})")
        key = self._key(context, steps[-1])
        if self._known(context, steps[-1]):
            self.first = True
        if self.found.get(key, row) != row:
            raise DialectError(f"{path}: stands for two fields")
        self.found[key] = row

    def _spare(self, path: str, key: tuple[int, tuple[int, int, int]]) -> int:
        row = self.found.get(key)
        if row is None:
            used = sum(s.A_SPARE <= other < s.A_SPARE + s.SPARES for other in self.found.values())
            if used == s.SPARES:
                raise DialectError(f"{path}: more than {s.SPARES} objects of the dialect's own")
            row = self.found[key] = s.A_SPARE + used
        return _context(s.ROWS[row][1].context)

    @staticmethod
    def _key(context: int, step: str) -> tuple[int, tuple[int, int, int]]:
        if step.startswith("#"):
            if not step[1:].isdigit():
                raise DialectError(f"{step}: is not the number of a protobuf field; write #1007")
            return context << 8 | NUMBER_KEY, (int(step[1:]), 0, 0)
        raw = step.encode()
        return context << 8 | len(raw), _key_words(raw)

    @staticmethod
    def _known(context: int, step: str) -> int:
        name = s.CONTEXTS[context]
        number = int(step[1:]) if step.startswith("#") else -1
        return next((k for k, (n, f) in enumerate(s.ROWS) if n == name and (f.key == step or f.number == number)), 0)

    def words(self) -> tuple[int, list[int]]:
        """(mask, entries): open addressing, at most half full."""
        size = 1
        while size < 2 * len(self.found) + 1:
            size *= 2
        table = [[0] * _ENTRY for _ in range(size)]
        for (packed, key), row in self.found.items():
            slot = _slot(packed, key, size - 1)
            while table[slot][0]:
                slot = (slot + 1) % size
            table[slot] = [packed, *key, row]
        return size - 1, [word for entry in table for word in entry]


def _value(kind: int, path: str, value: str | int) -> int:
    """A value as its column holds it."""
    if s.FIRST_NUMBER <= kind <= s.LAST_NUMBER:
        if kind not in (s.INT, s.FLAG) or not str(value).lstrip("-").isdigit():
            raise DialectError(f"{path}: {value!r} is not a whole number")
        return int(value)
    if kind not in (s.HASH, s.COUNTRY, s.REGION, s.LANG, s.HOST, s.GENDER):
        raise DialectError(f"{path}: values of this field can't be told apart")
    return ord(str(value)[:1].upper() or "\0") if kind == s.GENDER else hash_text(str(value))


def _values(dialect: Dialect) -> list[int]:
    words: list[int] = []
    for path, given in dialect.values.items():
        with _at("values", path):
            row, inside = _standard(path)
            field = s.ROWS[row][1]
            if _level(inside) == _DEAL:
                raise DialectError(f"{path}: values of deals can't be translated")
            for sent, known in given.items():
                words += [field.column, _value(field.kind, path, sent), _value(field.kind, path, known)]
    for path, value in dialect.defaults.items():
        with _at("defaults", path):
            row, inside = _standard(path)
            field = s.ROWS[row][1]
            if _level(inside) == _DEAL:
                raise DialectError(f"{path}: deals have no defaults")
            words += [field.column, int(r.DEFAULTS[field.column]), _value(field.kind, path, value)]
    return words


def _unit(text: str) -> tuple[int, int]:
    try:
        numerator, denominator = Decimal(text).as_integer_ratio()
    except (ArithmeticError, ValueError):
        raise DialectError(f"{text!r} is not a decimal") from None
    if not 0 < numerator <= 9 or denominator > 10**6:
        raise DialectError(f"{text!r} is not a unit; write 1, 0.01 or 0.000001")
    return numerator, denominator


@contextmanager
def _at(*path: str) -> Iterator[None]:
    """Say where a `DialectError` comes from."""
    try:
        yield
    except DialectError as error:
        error.path = path
        raise


def compile_dialect(dialect: Dialect, seats: Mapping[str, str] | None = None) -> list[int]:
    """The block of ``dialect`` at an exchange with these ``seats`` (its name -> ours). Raises `DialectError`."""
    entries = _Entries()
    for path, target in dialect.fields.items():
        with _at("fields", path):
            entries.add(path, target)
    mask, keys = entries.words()
    values = _values(dialect)
    with _at("floor_unit"):
        numerator, denominator = _unit(dialect.floor_unit)
    quirks = Q_FIRST * entries.first | Q_NUMERIC_IDS * dialect.numeric_ids | Q_LENIENT * dialect.lenient
    currency = hash_text(dialect.floor_currency) if dialect.floor_currency else 0
    pairs = [hash_text(seat) for pair in (seats or {}).items() for seat in pair]
    head = [quirks, mask, len(values) // _VALUE, numerator, denominator, currency, len(keys), len(pairs) // 2]
    signed_keys = np.array(keys, np.uint64).view(np.int64).tolist()
    return [*head, *signed_keys, *values, *pairs]


class Dialects:
    """The blocks of a snapshot's exchanges: ``words`` int64[n], ``first`` int64[X] where each one's begins, -1 none."""

    def __init__(self, words: I64, first: I64) -> None:
        self.words = np.ascontiguousarray(words if len(words) else np.zeros(1, np.int64))
        self.first = np.ascontiguousarray(first)
        self.any = bool((self.first >= 0).any())


def compile_dialects(dialects: Sequence[tuple[Dialect, Mapping[str, str]]]) -> tuple[I64, I64]:
    """(words, first) of the exchanges' dialects and seats (their name -> ours), equal ones once."""
    words: list[int] = []
    known: dict[bytes, int] = {}
    first = np.full(len(dialects), -1, np.int64)
    for i, (dialect, seats) in enumerate(dialects):
        if dialect == STANDARD and not seats:
            continue
        text = msgspec.json.encode((dialect, seats))
        if text not in known:
            known[text] = len(words)
            words += compile_dialect(dialect, seats)
        first[i] = known[text]
    return np.array(words, np.int64), first


@nb.njit(cache=True)
def _find(block: int, packed: int, first: np.uint64, middle: np.uint64, last: np.uint64) -> int:
    mask = at(block, 1)
    mixed = first ^ (middle >> np.uint64(1)) ^ (last >> np.uint64(3)) ^ (np.uint64(packed) << np.uint64(32))
    slot = signed((mixed * _MIX) >> np.uint64(40)) & mask
    while True:
        entry = _HEAD + _ENTRY * slot
        held = at(block, entry)
        if held == 0:
            return 0
        if (
            held == packed
            and at_u64(block, entry + 1) == first
            and at_u64(block, entry + 2) == middle
            and at_u64(block, entry + 3) == last
        ):
            return at(block, entry + 4)
        slot = (slot + 1) & mask


@nb.njit(cache=True)
def find_alias(block: int, text: int, off: int, length: int, context: int) -> int:
    """The row that a key stands for in a dialect, 0 if it says nothing of it."""
    if length > MAX_KEY:
        return 0
    first, middle, last = peek64(text, off), np.uint64(0), np.uint64(0)
    if length < 8:
        first &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    elif length > 8:
        last = peek64(text, off + length - 8)
        if length > 16:
            middle = peek64(text, off + 8)
    return _find(block, context << 8 | length, first, middle, last)


@nb.njit(cache=True)
def find_number(block: int, number: int, context: int) -> int:
    """`find_alias` of a protobuf field number."""
    return _find(block, context << 8 | NUMBER_KEY, np.uint64(number), np.uint64(0), np.uint64(0))


@nb.njit(cache=True)
def _floor(block: int, row: int, floor: int, currency: int) -> None:
    """Bring a floor to CPM micros, rounded up, and name its currency."""
    value = at(row, floor)
    if value > 0:
        put(row, floor, -((-value * at(block, 3)) // at(block, 4)))
    if at(row, currency) == 0:
        put(row, currency, at(block, 5))


@nb.njit(cache=True)
def _translate(block: int, row: int, first: int, stop: int) -> None:
    """Replace the values of the columns [first, stop) that ``row`` holds; of one column's the first that fits."""
    word = _HEAD + at(block, 6)
    done = -1
    for _ in range(at(block, 2)):
        column = at(block, word)
        if first <= column < stop and column != done and at(row, column - first) == at(block, word + 1):
            put(row, column - first, at(block, word + 2))
            done = column
        word += _VALUE


@nb.njit(cache=True)
def _rename(block: int, pool: int, first: int, count: int) -> None:
    """Replace the exchange's seats in a list of hashes by ours; what it has for none of ours becomes nobody's."""
    seats = _HEAD + at(block, 6) + _VALUE * at(block, 2)
    for p in range(first, first + count):
        name = np.int64(0)
        for k in range(at(block, 7)):
            if at(block, seats + 2 * k) == at(pool, p):
                name = at(block, seats + 2 * k + 1)
        put(pool, p, name)


@nb.njit(cache=True)
def _rename_all(block: int, work: int, pool: int, imps: int, deals: int) -> None:
    _rename(block, pool, at(work, c.R_WSEAT0), at(work, c.R_WSEATN))
    _rename(block, pool, at(work, c.R_BSEAT0), at(work, c.R_BSEATN))
    for i in range(at(work, c.R_IMP0), at(work, c.R_IMP0) + at(work, c.R_IMPN)):
        row = imps + 8 * i * c.I_WIDTH
        for d in range(at(row, c.I_DEAL0), at(row, c.I_DEAL0) + at(row, c.I_DEALN)):
            deal = deals + 8 * d * c.D_WIDTH
            _rename(block, pool, at(deal, c.D_WSEAT0), at(deal, c.D_WSEATN))


@nb.njit(cache=True)
def settle(work: int, pool: int, imps: int, deals: int) -> None:
    """Put a finished request's values, units, seats and defaults right, as its dialect says."""
    block = at(work, r.W_DIALECT)
    if at(block, 7) > 0:
        _rename_all(block, work, pool, imps, deals)
    same_floors = at(block, 3) == at(block, 4) and at(block, 5) == 0
    if at(block, 2) > 0:
        _translate(block, work, 0, r.IMP)
    elif same_floors:
        return
    for i in range(at(work, c.R_IMP0), at(work, c.R_IMP0) + at(work, c.R_IMPN)):
        row = imps + 8 * i * c.I_WIDTH
        if at(block, 2) > 0:
            _translate(block, row, r.IMP, r.DEAL)
        if not same_floors:
            _floor(block, row, c.I_FLOOR, c.I_FLOORCUR)
            for d in range(at(row, c.I_DEAL0), at(row, c.I_DEAL0) + at(row, c.I_DEALN)):
                _floor(block, deals + 8 * d * c.D_WIDTH, c.D_FLOOR, c.D_FLOORCUR)
