"""May we: the consent decision table, compiled from ``consent.yaml``, and the kernel that applies it to a batch.

The table is data, with the reason of every row; this module turns it into one byte per combination of signals, so that
deciding is: read the signals, look up, and where the byte says so read the TCF string in place. Invariant: what can't
be read was not agreed to. No string, however malformed, is an error, and no row can widen what another forbids.

Bits of a decision: JOIN (read the profile), FREQUENCY (count and cap what the person saw), RISK (read risk factors),
SPECIAL (the law forbids demographics for credit), RECORD (the profile's own record of consent must agree as well:
`mask_profiles`, after the read).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import yaml

from dsp.audience.gpp import (
    REFUSED,
    SECTION_TCF_CANADA,
    SECTION_TCF_EU,
    SECTION_US_NATIONAL,
    SECTION_US_PRIVACY,
    gpp_section,
    us_national,
    us_privacy,
)
from dsp.audience.identity import column_numbers
from dsp.audience.profile import (
    CONSENT_FINANCIAL,
    CONSENT_PROFILING,
    P_CONSENT,
    P_CONSENT_UNTIL,
    P_INCOME_BAND,
    P_INTENT,
    P_LIFECYCLE,
    P_N_SEGMENTS,
    P_OWNED,
    P_RISK,
)
from dsp.audience.store import N_PRODUCTS
from dsp.audience.tcf import tcf_purposes

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

JOIN = 1
FREQUENCY = 2
RISK = 4
SPECIAL = 8
RECORD = 16
_NEEDS_TCF = 32
_ALLOWED = JOIN | FREQUENCY | RISK

# The signals, slowest first, and their values; a combination's cell is their mixed-radix number.
SIGNALS: dict[str, tuple[str, ...]] = {
    "region": ("unknown", "gdpr", "us", "cn", "other"),
    "gdpr": ("unset", "0", "1"),
    "us_privacy": ("unset", "kept", "refused"),
    "gpp": ("unset", "kept", "refused"),
    "pipl": ("unset", "0", "1"),
    "coppa": ("unset", "0", "1"),
    "lmt": ("unset", "0", "1"),
    "dnt": ("unset", "0", "1"),
}
_REGIONS = SIGNALS["region"]
_OTHER = _REGIONS.index("other")
_CELLS = int(np.prod([len(values) for values in SIGNALS.values()]))
_BITS = {"join": JOIN, "frequency": FREQUENCY, "risk": RISK}
_NEEDS = {"tcf": _NEEDS_TCF, "record": RECORD}

_COUNTRIES = 1024  # slots of the country table, a power of two; a slot's value is region | special << 4

# Names of openrtb's REQUEST_COLUMNS that the kernel reads; each length follows its offset.
CONSENT_COLUMNS = (
    "STATUS", "EXCHANGE", "COUNTRY", "GDPR", "CONSENT_OFF", "USP_OFF", "GPP_OFF", "GPPSID0", "PIPL", "COPPA", "LMT",
    "DNT",
)  # fmt: skip
(
    _STATUS, _EXCHANGE, _COUNTRY, _GDPR, _TCF, _USP, _GPP, _GPPSID, _PIPL, _COPPA, _LMT, _DNT,
) = range(len(CONSENT_COLUMNS))  # fmt: skip

DEFAULT_TABLE = Path(__file__).with_name("consent.yaml")
N_FINANCIAL_RISK = 6


class ConsentError(ValueError):
    """A decision table that can't be used; the message says which entry and why."""


class ConsentGate:
    """A compiled decision table and the exchanges it is applied to; one per engine."""

    def __init__(
        self,
        vendor_id: int,
        request_columns: Sequence[str],
        hash_text: Callable[[str], int],
        file: Path = DEFAULT_TABLE,
    ) -> None:
        """Compile the table in ``file``. Raises `ConsentError`.

        ``vendor_id`` is ours in the TCF global vendor list, ``request_columns`` the decoder's column names in order,
        ``hash_text`` the hash that it puts into the COUNTRY column.
        """
        try:
            raw = yaml.safe_load(file.read_text())
            self.cells: U8 = compile_rows(raw["rows"])
            self.country_keys, self.country_values = _compile_countries(raw["regions"], raw["special"], hash_text)
            purposes = [_purpose_mask(raw["tcf"][name]) for name in ("join", "frequency", "risk")]
            self._exchanges = {str(name): _bits(allow, _BITS) for name, allow in (raw["exchanges"] or {}).items()}
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ConsentError) as error:
            raise ConsentError(f"{file}: {error}") from error
        self.columns = column_numbers(CONSENT_COLUMNS, request_columns)
        self.tcf: I64 = np.array([vendor_id, *purposes], np.int64)
        self.exchange_mask: I64 = np.zeros(0, np.int64)

    def attach(self, exchange_names: Sequence[str]) -> None:
        """Say which exchanges there are, by index; called for every snapshot. Before that, nothing is allowed."""
        self.exchange_mask = np.array([self._exchanges.get(name, _ALLOWED) for name in exchange_names], np.int64)

    def run(self, req: I64, text: U8, pool: I64, n: int, out_bits: I64) -> None:
        """Decide a decoded batch of ``n`` requests into ``out_bits`` int64[n]; see `consent_gate`."""
        consent_gate(
            req, text, pool, n, self.columns, self.cells, self.country_keys, self.country_values, self.tcf,
            self.exchange_mask, out_bits,
        )  # fmt: skip


def compile_rows(rows: Sequence[dict[str, Any]]) -> U8:
    """One byte per combination of signals, uint8[_CELLS]: what all matching rows allow | what any of them needs."""
    shape = tuple(len(values) for values in SIGNALS.values())
    matched = np.zeros(shape, bool)
    allowed = np.full(shape, _ALLOWED, np.uint8)
    needed = np.zeros(shape, np.uint8)
    for row in rows:
        where = np.ix_(*_conditions(row["when"]))
        matched[where] = True
        allowed[where] &= np.uint8(_bits(row["allow"], _BITS))
        needed[where] |= np.uint8(_bits(_listed(row.get("needs", [])), _NEEDS))
    return np.where(matched & (allowed > 0), allowed | needed, 0).astype(np.uint8).ravel()


def _conditions(when: dict[str, Any]) -> list[list[int]]:
    """Per signal, the numbers of the values that a row matches."""
    for name, wanted in when.items():
        if name not in SIGNALS:
            raise ConsentError(f"unknown signal {name!r}; signals are {', '.join(SIGNALS)}")
        for value in _listed(wanted):
            if value not in SIGNALS[name]:
                raise ConsentError(f"{name}: unknown value {value!r}; values are {', '.join(SIGNALS[name])}")
    return [
        [values.index(value) for value in _listed(when.get(name, list(values)))] for name, values in SIGNALS.items()
    ]


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _bits(names: Sequence[str], known: dict[str, int]) -> int:
    bits = 0
    for name in names:
        if name not in known:
            raise ConsentError(f"unknown {name!r}; known are {', '.join(known)}")
        bits |= known[name]
    return bits


def _purpose_mask(purposes: Sequence[int]) -> int:
    if not purposes or not all(1 <= p <= 24 for p in purposes):
        raise ConsentError(f"tcf: purposes are 1 to 24 and at least one, not {purposes}")
    return sum(1 << (p - 1) for p in set(purposes))


def _compile_countries(
    regions: dict[str, str], special: dict[str, str], hash_text: Callable[[str], int]
) -> tuple[I64, I64]:
    """The country table: hash of a code to region | special << 4."""
    codes: dict[str, int] = {}
    for region, names in regions.items():
        if region not in _REGIONS:
            raise ConsentError(f"unknown region {region!r}")
        for code in names.replace('"', "").split():
            codes[code] = _REGIONS.index(region)
    for names in special:
        for code in names.split():
            codes[code] = codes.get(code, _OTHER) | 1 << 4
    keys, values = np.zeros(_COUNTRIES, np.int64), np.zeros(_COUNTRIES, np.int64)
    for code, value in codes.items():
        key = hash_text(code)
        slot = key & (_COUNTRIES - 1)
        while keys[slot]:
            slot = (slot + 1) & (_COUNTRIES - 1)
        keys[slot], values[slot] = key, value
    return keys, values


@nb.njit(cache=True, nogil=True)
def _country(key: int, keys: I64, values: I64) -> tuple[int, int]:
    """(region, 1 where demographics are forbidden for credit) of a country's hash; 0 = no country given."""
    if key == 0:
        return 0, 1
    slot = key & (_COUNTRIES - 1)
    while keys[slot] != 0:
        if keys[slot] == key:
            return values[slot] & 15, values[slot] >> 4
        slot = (slot + 1) & (_COUNTRIES - 1)
    return _OTHER, 0


@nb.njit(cache=True, nogil=True)
def _flag(value: int) -> int:
    """A 0/1 signal's state: 0 unset (negative), 1 no, 2 yes (anything else, so that nonsense is never a no)."""
    if value < 0:
        return 0
    return 1 if value == 0 else 2


@nb.njit(cache=True, nogil=True)
def consent_gate(
    req: I64,
    text: U8,
    pool: I64,
    n: int,
    columns: I64,
    cells: U8,
    country_keys: I64,
    country_values: I64,
    tcf: I64,
    exchange_mask: I64,
    out_bits: I64,
) -> None:
    """Decide ``n`` decoded requests: ``out_bits[i]`` = JOIN | FREQUENCY | RISK | SPECIAL | RECORD bits.

    ``req``, ``text``, ``pool``: the batch. The table's arrays are those of `ConsentGate`; ``exchange_mask`` int64[X]
    by exchange index (out of range: nothing allowed). A row whose status isn't 0 gets SPECIAL alone.
    """
    for i in range(n):
        row = req[i]
        if row[columns[_STATUS]] != 0:
            out_bits[i] = SPECIAL
            continue
        region, special = _country(row[columns[_COUNTRY]], country_keys, country_values)
        gdpr = _flag(row[columns[_GDPR]])
        tcf_off, tcf_len = row[columns[_TCF]], row[columns[_TCF] + 1]
        usp_off, usp_len = row[columns[_USP]], row[columns[_USP] + 1]
        usp = 0
        if usp_len > 0:
            usp = us_privacy(text, usp_off, usp_len)
        gpp = 0
        gpp_off, gpp_len = row[columns[_GPP]], row[columns[_GPP] + 1]
        for k in range(row[columns[_GPPSID] + 1]):
            section = pool[row[columns[_GPPSID]] + k]
            off, length = gpp_section(text, gpp_off, gpp_len, section)
            if section == SECTION_TCF_EU:
                gdpr = 2
                if tcf_len == 0:
                    tcf_off, tcf_len = off, length
            elif section == SECTION_US_PRIVACY:
                usp = max(usp, us_privacy(text, off, length))
            elif section == SECTION_US_NATIONAL:
                gpp = max(gpp, us_national(text, off, length))
            elif section > SECTION_US_NATIONAL or section == SECTION_TCF_CANADA:
                gpp = REFUSED
        cell = ((region * 3 + gdpr) * 3 + usp) * 3 + gpp
        cell = (cell * 3 + _flag(row[columns[_PIPL]])) * 3 + _flag(row[columns[_COPPA]])
        cell = (cell * 3 + _flag(row[columns[_LMT]])) * 3 + _flag(row[columns[_DNT]])
        bits = np.int64(cells[cell])
        if bits & _NEEDS_TCF:
            given = np.int64(0)
            if tcf_len > 0:
                given = max(np.int64(0), tcf_purposes(text, tcf_off, tcf_len, tcf[0]))
            for k in range(3):
                if given & tcf[1 + k] != tcf[1 + k]:
                    bits &= ~(1 << k)
            bits &= ~_NEEDS_TCF
        exchange = row[columns[_EXCHANGE]]
        left = exchange_mask[exchange] if 0 <= exchange < exchange_mask.shape[0] else 0
        bits &= left | RECORD
        if bits & _ALLOWED == 0:
            bits = np.int64(0)
        out_bits[i] = bits | (special * SPECIAL)


@nb.njit(cache=True, nogil=True)
def mask_profiles(n: int, bits: I64, profiles: U8, found: I64, today_d: int = 0) -> None:
    """After the read: take out of ``profiles`` uint8[n, PROFILE_BYTES] what the decisions ``bits`` int64[n] forbid.

    No JOIN, or RECORD without the profile's own profiling consent: the person is unknown (found = 0, row zeroed).
    A record of consent that ended before ``today_d`` (days since 1970-01-01) counts as none.
    RECORD without its financial consent: income, ownership, life cycle, intent, segments and risk read as unknown.
    No RISK: the risk factors read as unknown.
    """
    for i in range(n):
        if found[i] == 0:
            continue
        consent = profiles[i, P_CONSENT]
        until_d = np.int64(profiles[i, P_CONSENT_UNTIL]) + 256 * np.int64(profiles[i, P_CONSENT_UNTIL + 1])
        if until_d != 0 and until_d < today_d:
            consent = np.uint8(0)  # what was given once has ended
        on_record = bits[i] & RECORD == 0 or consent & CONSENT_PROFILING != 0
        if bits[i] & JOIN == 0 or not on_record:
            found[i] = 0
            profiles[i] = np.uint8(0)
            continue
        financial = bits[i] & RECORD == 0 or consent & CONSENT_FINANCIAL != 0
        if not financial:
            profiles[i, P_INCOME_BAND] = np.uint8(0)
            profiles[i, P_OWNED] = np.uint8(0)
            profiles[i, P_N_SEGMENTS] = np.uint8(0)
            profiles[i, P_LIFECYCLE : P_LIFECYCLE + N_PRODUCTS] = np.uint8(0)
            profiles[i, P_INTENT : P_INTENT + N_PRODUCTS] = np.uint8(255)
        if not financial or bits[i] & RISK == 0:
            profiles[i, P_RISK : P_RISK + N_FINANCIAL_RISK] = np.uint8(255)
