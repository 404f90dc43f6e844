"""The files below ``supply/`` of the data directory, sorted for look-up; `dsp.bidder.supply` says what each does.

A file that can't be used is an error with its path, line and what is wrong there; nothing of it is half used.
"""

from __future__ import annotations

import csv
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.openrtb.hashing import hash_combine, hash_text

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

_NONE: I64 = np.zeros(0, np.int64)


class SupplyError(Exception):
    """A file below ``supply/`` that can't be used; says which, and where."""


@dataclass(frozen=True)
class SupplyTables:
    """What the files say, sorted for look-up. Hashes are `dsp.openrtb.hashing.hash_text`'s.

    ``first`` and ``last`` int64[n]: IPv4 ranges, rising and apart; ``first6`` and ``last6`` uint64[m, 2]: IPv6 ranges,
    upper and lower half. ``blocked`` int64[b]: hash of asi, or of (asi, sid). ``domains`` int64[d]: whose ads.txt we
    have; ``authorised`` int64[a]: hash of (domain, ad system, seller). ``listed`` int64[e]: hashes of exchanges with a
    sellers.json; ``sellers`` int64[s]: hash of (exchange, seller). ``placements`` int64[p]: hash of (property, tagid),
    or the property's alone; ``viewability`` and ``fraud`` float64[p], -1 unknown.
    """

    first: I64
    last: I64
    domains: I64
    authorised: I64
    listed: I64
    sellers: I64
    placements: I64
    viewability: F64
    fraud: F64
    first6: U64
    last6: U64
    blocked: I64

    @property
    def any(self) -> bool:
        """Whether there is a rule at all."""
        lists = (self.first, self.first6, self.domains, self.listed, self.placements, self.blocked)
        return any(len(each) for each in lists)


NO_SUPPLY = SupplyTables(
    *(_NONE,) * 7, np.zeros(0), np.zeros(0), np.zeros((0, 2), np.uint64), np.zeros((0, 2), np.uint64), _NONE
)


def load_supply(directory: Path) -> SupplyTables:
    """Read every file. Raises `SupplyError` naming file and line."""
    first, last, first6, last6 = _ranges(directory / "ip_ranges.txt")
    domains, authorised = _ads_txt(directory / "ads_txt")
    listed, sellers = _sellers(directory / "sellers")
    placements = _placements(directory / "placements.csv")
    blocked = _blocked(directory / "schain_blocked.txt")
    return SupplyTables(first, last, domains, authorised, listed, sellers, *placements, first6, last6, blocked)


def _lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that say something; ``#`` begins a comment. Raises `SupplyError`."""
    try:
        text = path.read_text() if path.exists() else ""
    except UnicodeDecodeError as error:
        raise SupplyError(f"{path}: no text: {error}") from error
    stripped = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line]


def _ranges(path: Path) -> tuple[I64, I64, U64, U64]:
    four: list[ipaddress.IPv4Network] = []
    six: list[ipaddress.IPv6Network] = []
    for number, text in _lines(path):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise SupplyError(f"{path}:{number}: {error}") from error
        if isinstance(network, ipaddress.IPv4Network):
            four.append(network)
        else:
            six.append(network)
    merged, merged6 = list(ipaddress.collapse_addresses(four)), list(ipaddress.collapse_addresses(six))
    return (
        np.array([int(n.network_address) for n in merged], np.int64),
        np.array([int(n.broadcast_address) for n in merged], np.int64),
        _halves([int(n.network_address) for n in merged6]),
        _halves([int(n.broadcast_address) for n in merged6]),
    )


def _halves(addresses: list[int]) -> U64:
    return np.array([(a >> 64, a & (1 << 64) - 1) for a in addresses], np.uint64).reshape(-1, 2)


def _blocked(path: Path) -> I64:
    """Hashes of blocked nodes: a line is ``asi`` or ``asi,sid``."""
    nodes = []
    for number, text in _lines(path):
        fields = [field.strip() for field in text.split(",")]
        if len(fields) > 2 or not all(fields):
            raise SupplyError(f"{path}:{number}: a node is asi or asi,sid, not {text!r}")
        hashes = [hash_text(field) for field in fields]
        nodes.append(hashes[0] if len(hashes) == 1 else _of(hashes[0], hashes[1]))
    return _sorted(nodes)


def _ads_txt(directory: Path) -> tuple[I64, I64]:
    domains, authorised = [], []
    for path in sorted(directory.glob("*.txt")):
        domain = hash_text(path.stem.lower())
        domains.append(domain)
        for line in path.read_text(errors="replace").splitlines():
            fields = [field.strip() for field in line.partition("#")[0].split(",")]
            if len(fields) >= 3 and fields[0] and fields[1]:
                authorised.append(_of(domain, _of(hash_text(fields[0].lower()), hash_text(fields[1]))))
    return _sorted(domains), _sorted(authorised)


def _sellers(directory: Path) -> tuple[I64, I64]:
    listed, sellers = [], []
    for path in sorted(directory.glob("*.json")):
        exchange = hash_text(path.stem)
        try:
            found = json.loads(path.read_text())["sellers"]
            sellers += [_of(exchange, hash_text(str(seller["seller_id"]))) for seller in found]
        except (ValueError, KeyError, TypeError) as error:
            raise SupplyError(f"{path}: no sellers.json: {error!r}") from error
        listed.append(exchange)
    return _sorted(listed), _sorted(sellers)


def _placements(path: Path) -> tuple[I64, F64, F64]:
    rows: dict[int, tuple[float, float]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    key, tag = hash_text(row["property"].strip()), hash_text((row.get("tagid") or "").strip())
                    scores = tuple(float(row[name]) if row.get(name) else -1.0 for name in ("viewability", "fraud"))
                except (KeyError, ValueError, AttributeError) as error:
                    raise SupplyError(f"{path}:{number}: {error!r}") from error
                if max(scores) > 1.0:
                    raise SupplyError(f"{path}:{number}: shares are between 0 and 1, not {max(scores):g}")
                rows[_of(key, tag) if tag else key] = (scores[0], scores[1])
    keys = _sorted(list(rows))
    found = np.array([rows[key] for key in keys.tolist()]).reshape(-1, 2)
    return keys, found[:, 0].copy(), found[:, 1].copy()


def _of(a: int, b: int) -> int:
    return int(hash_combine(np.int64(a), np.int64(b)))


def _sorted(values: list[int]) -> I64:
    return np.unique(np.array(values, np.int64))
