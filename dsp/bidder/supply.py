"""Supply quality, behind the gate: requests whose seller, path, address or placement we don't buy from.

What is known lies in files below ``supply/`` of the data directory, which whoever crawls or buys such lists puts there;
a rule without its file does nothing. They are looked at every ``supply.reload_s`` by a thread of its own and swapped in
between batches, whole or not at all: a file that can't be read keeps what was there, and is said in the log.

    ip_ranges.txt         networks of data centres and proxies, one CIDR a line (IPv4)     no-bid reason 5
    ads_txt/DOMAIN.txt    the ads.txt or app-ads.txt of a domain, as it was fetched          12, absent: 11 if required
    sellers/EXCHANGE.json the sellers.json of an exchange, by our name for it                515
    placements.csv        property,tagid,viewability,fraud (shares of 1; no tagid: all)      4 fraud, 514 viewability

Besides, a supply chain that says it is incomplete is refused where ``supply.complete_chain`` says so (16). In OpenRTB
``publisher.id`` is the seller's id in both ads.txt and sellers.json, so no chain needs to be walked for either.
"""

from __future__ import annotations

import csv
import ipaddress
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsp.base.config import Config, SupplyConfig
from dsp.base.kernel import inlined, kernel
from dsp.base.logs import logger
from dsp.bidder.gate import GO, Q_NBR
from dsp.openrtb.codes import (
    NBR_ADS_TXT_UNAVAILABLE,
    NBR_ADS_TXT_VIOLATION,
    NBR_INCOMPLETE_SCHAIN,
    NBR_NON_HUMAN,
    NBR_PROXY_IP,
    NBR_UNLISTED_SELLER,
    NBR_VIEWABILITY,
)
from dsp.openrtb.columns import (
    CHANNEL_APP,
    I_MEDIA,
    I_TAGID,
    R_BUNDLE,
    R_CHANNEL,
    R_DOMAIN,
    R_EXCHANGE,
    R_IMP0,
    R_IMPN,
    R_IP_LEN,
    R_IP_OFF,
    R_PUBLISHER,
    R_SCHAIN_COMPLETE,
    Batch,
)
from dsp.openrtb.hashing import hash_combine, hash_text

log = logger(__name__)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

SUPPLY_REASONS = (
    NBR_PROXY_IP, NBR_INCOMPLETE_SCHAIN, NBR_ADS_TXT_UNAVAILABLE, NBR_ADS_TXT_VIOLATION, NBR_UNLISTED_SELLER,
    NBR_NON_HUMAN, NBR_VIEWABILITY,
)  # fmt: skip
_PROXY, _CHAIN, _NO_ADS_TXT, _ADS_TXT, _SELLER, _FRAUD, _UNSEEN = range(len(SUPPLY_REASONS))
_REASONS = np.array(SUPPLY_REASONS, np.int64)
_NONE: I64 = np.zeros(0, np.int64)


class SupplyError(Exception):
    """A file below ``supply/`` that can't be used; says which, and where."""


@dataclass(frozen=True)
class SupplyTables:
    """What the files say, sorted for look-up. Hashes are `dsp.openrtb.hashing.hash_text`'s.

    ``first`` and ``last`` int64[n]: IPv4 ranges, rising and apart. ``domains`` int64[d]: whose ads.txt we have;
    ``authorised`` int64[a]: hash of (domain, ad system, seller). ``listed`` int64[e]: hashes of exchanges with a
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

    @property
    def any(self) -> bool:
        """Whether there is a rule at all."""
        return bool(len(self.first) or len(self.domains) or len(self.listed) or len(self.placements))


NO_SUPPLY = SupplyTables(*(_NONE,) * 7, np.zeros(0), np.zeros(0))


def load_supply(directory: Path) -> SupplyTables:
    """Read every file. Raises `SupplyError` naming file and line."""
    first, last = _ranges(directory / "ip_ranges.txt")
    domains, authorised = _ads_txt(directory / "ads_txt")
    listed, sellers = _sellers(directory / "sellers")
    return SupplyTables(first, last, domains, authorised, listed, sellers, *_placements(directory / "placements.csv"))


def _ranges(path: Path) -> tuple[I64, I64]:
    networks = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise SupplyError(f"{path}:{number}: {error}") from error
        if isinstance(network, ipaddress.IPv4Network):
            networks.append(network)
    merged = list(ipaddress.collapse_addresses(networks))
    return (
        np.array([int(n.network_address) for n in merged], np.int64),
        np.array([int(n.broadcast_address) for n in merged], np.int64),
    )


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


@inlined
def _index(keys: I64, key: int) -> int:
    """Where ``key`` is among rising ``keys``, -1 where it isn't."""
    low, high = 0, keys.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < keys.shape[0] and keys[low] == key else -1


@inlined
def _ipv4(text: U8, off: int, length: int) -> int:
    """The address as a number, -1 if it is none."""
    value, part, digits, dots = 0, 0, 0, 0
    for i in range(off, off + length):
        c = int(text[i])
        if 48 <= c <= 57:
            part = part * 10 + c - 48
            digits += 1
            if part > 255 or digits > 3:
                return -1
        elif c == 46 and digits > 0:
            value, part, digits, dots = value << 8 | part, 0, 0, dots + 1
        else:
            return -1
    return value << 8 | part if dots == 3 and digits > 0 else -1


@inlined
def _within(first: I64, last: I64, address: int) -> bool:
    low, high = 0, first.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if first[middle] <= address:
            low = middle + 1
        else:
            high = middle
    return low > 0 and address <= last[low - 1]


@kernel
def check_supply(
    n: int, req: I64, imp: I64, text: U8, first: I64, last: I64, domains: I64, authorised: I64, listed: I64,
    sellers: I64, placements: I64, viewability: F64, fraud: F64, systems: I64, names: I64, complete_chain: bool,
    require_ads_txt: bool, least_viewability: float, most_fraud: float, reasons: I64, q: I64, refused: I64,
) -> None:  # fmt: skip
    """Refuse by the tables of `SupplyTables`: Q_NBR becomes one of ``reasons``, counted in ``refused`` [X, reasons].

    ``systems`` int64[X]: hash of each exchange's ad system domain, 0 unknown; ``names`` int64[X]: of its name. An imp
    on a placement that is not bought is offered nothing (I_MEDIA 0); a request is refused where none is left.
    """
    for r in range(n):
        if q[r, Q_NBR] != GO:
            continue
        x = req[r, R_EXCHANGE]
        why = -1
        domain = req[r, R_DOMAIN]
        place = req[r, R_BUNDLE] if req[r, R_CHANNEL] == CHANNEL_APP else domain
        seller = req[r, R_PUBLISHER]
        if first.shape[0] > 0 and _within(first, last, _ipv4(text, req[r, R_IP_OFF], req[r, R_IP_LEN])):
            why = _PROXY
        elif complete_chain and req[r, R_SCHAIN_COMPLETE] == 0:
            why = _CHAIN
        elif systems[x] != 0 and domain != 0 and domains.shape[0] > 0:
            if _index(domains, domain) < 0:
                why = _NO_ADS_TXT if require_ads_txt else -1
            elif _index(authorised, hash_combine(domain, hash_combine(systems[x], seller))) < 0:
                why = _ADS_TXT
        if why < 0 and _index(listed, names[x]) >= 0 and _index(sellers, hash_combine(names[x], seller)) < 0:
            why = _SELLER
        if why < 0 and placements.shape[0] > 0:
            left = 0
            for i in range(req[r, R_IMP0], req[r, R_IMP0] + req[r, R_IMPN]):
                at = _index(placements, hash_combine(place, imp[i, I_TAGID]))
                if at < 0:
                    at = _index(placements, place)
                bad = -1
                if at >= 0 and fraud[at] > most_fraud:
                    bad = _FRAUD
                elif at >= 0 and 0.0 <= viewability[at] < least_viewability:
                    bad = _UNSEEN
                if bad < 0:
                    left += 1
                else:
                    imp[i, I_MEDIA] = 0
                    why = bad
            if left > 0:
                why = -1
        if why >= 0:
            q[r, Q_NBR] = reasons[why]
            refused[min(x, refused.shape[0] - 1), why] += 1


class Supply:
    """The rules of one engine; belongs to its thread, but for the reading of files."""

    def __init__(self, config: Config) -> None:
        self.config: SupplyConfig = config.supply
        self.directory = config.path("supply")
        self.tables = NO_SUPPLY
        self._fresh: SupplyTables | None = None
        self._stamp: tuple[tuple[str, int], ...] = ()
        self._next_ns = 0
        self._reading: threading.Thread | None = None
        self._systems = self._names = _NONE
        self.read()
        self.tables = self._fresh or self.tables

    def attach(self, exchanges: list[str]) -> None:
        """The exchanges by index."""
        systems = {system.exchange: system.domain.lower() for system in self.config.systems}
        self._systems = np.array([hash_text(systems.get(name, "")) for name in exchanges] or [0], np.int64)
        self._names = np.array([hash_text(name) for name in exchanges] or [0], np.int64)

    def read(self) -> None:
        """Read the files if any has changed; what can't be used leaves what was there."""
        try:
            files = [path for path in self.directory.rglob("*") if path.is_file()]
            stamp = tuple(sorted((str(path), path.stat().st_mtime_ns) for path in files))
            if stamp != self._stamp:
                self._stamp = stamp
                self._fresh = load_supply(self.directory)
        except (SupplyError, OSError) as error:
            log.warning("supply list not used", why=str(error))

    def poll(self, now_ns: int) -> None:
        """Take up what was read, and have it read again in time; monotonic ns, between batches."""
        if self._fresh is not None:
            self.tables, self._fresh = self._fresh, None
        if now_ns >= self._next_ns and (self._reading is None or not self._reading.is_alive()):
            self._next_ns = now_ns + int(self.config.reload_s * 1e9)
            self._reading = threading.Thread(target=self.read, daemon=True)
            self._reading.start()

    def check(self, n: int, batch: Batch, q: I64, refused: I64) -> None:
        """Refuse of a batch what is not bought; counts by exchange and SUPPLY_REASONS into ``refused``."""
        tables, config = self.tables, self.config
        if not (tables.any or config.complete_chain):
            return
        check_supply(
            n, batch.req, batch.imp, batch.text, tables.first, tables.last, tables.domains, tables.authorised,
            tables.listed, tables.sellers, tables.placements, tables.viewability, tables.fraud, self._systems,
            self._names, config.complete_chain, config.require_ads_txt, config.least_viewability, config.most_fraud,
            _REASONS, q, refused,
        )  # fmt: skip
