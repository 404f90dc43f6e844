"""Supply quality, behind the gate: requests whose seller, path, address or placement we don't buy from.

What is known lies in files below ``supply/`` of the data directory, which whoever crawls or buys such lists puts there;
a rule without its file does nothing. They are looked at every ``supply.reload_s`` by a thread of its own and swapped in
between batches, whole or not at all: a file that can't be read keeps what was there, and is said in the log.

    ip_ranges.txt         networks of data centres and proxies, one CIDR a line            no-bid reason 5
    schain_blocked.txt    nodes of supply chains we don't buy through, asi or asi,sid      17
    ads_txt/DOMAIN.txt    the ads.txt or app-ads.txt of a domain, as it was fetched          12, absent: 11 if required
    sellers/EXCHANGE.json the sellers.json of an exchange, by our name for it                515
    placements.csv        property,tagid,viewability,fraud (shares of 1; no tagid: all)      4 fraud, 514 viewability

Besides, a supply chain that says it is incomplete is refused where ``supply.complete_chain`` says so (16). In OpenRTB
``publisher.id`` is the seller's id in both ads.txt and sellers.json, so no chain needs to be walked for either.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from dsp.base.config import Config, SupplyConfig
from dsp.base.kernel import inlined, kernel
from dsp.base.logs import logger
from dsp.bidder.gate import GO, Q_NBR
from dsp.bidder.supply_files import NO_SUPPLY, SupplyError, SupplyTables, load_supply
from dsp.openrtb.codes import (
    NBR_ADS_TXT_UNAVAILABLE,
    NBR_ADS_TXT_VIOLATION,
    NBR_BLOCKED_SCHAIN_NODE,
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
    NODE_WIDTH,
    R_BUNDLE,
    R_CHANNEL,
    R_DOMAIN,
    R_EXCHANGE,
    R_IMP0,
    R_IMPN,
    R_IP_LEN,
    R_IP_OFF,
    R_IPV6_LEN,
    R_IPV6_OFF,
    R_PUBLISHER,
    R_SCHAIN0,
    R_SCHAIN_COMPLETE,
    R_SCHAIN_NODES,
    Batch,
)
from dsp.openrtb.hashing import hash_combine, hash_text

log = logger(__name__)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

SUPPLY_REASONS = (
    NBR_PROXY_IP, NBR_INCOMPLETE_SCHAIN, NBR_ADS_TXT_UNAVAILABLE, NBR_ADS_TXT_VIOLATION, NBR_UNLISTED_SELLER,
    NBR_NON_HUMAN, NBR_VIEWABILITY, NBR_BLOCKED_SCHAIN_NODE,
)  # fmt: skip
_PROXY, _CHAIN, _NO_ADS_TXT, _ADS_TXT, _SELLER, _FRAUD, _UNSEEN, _NODE = range(len(SUPPLY_REASONS))
_REASONS = np.array(SUPPLY_REASONS, np.int64)
_NONE: I64 = np.zeros(0, np.int64)


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


@inlined
def _ipv6(text: U8, off: int, length: int) -> tuple[bool, np.uint64, np.uint64]:
    """(is one, upper half, lower half) of the address in the text forms of RFC 4291 2.2; a zone (%eth0) is cut off."""
    group, none, all_bits = np.uint64(16), np.uint64(0), np.uint64(0xFFFF)
    end, groups, gap, i = off + length, 0, -1, off  # gap: how many groups stand before the "::"
    for k in range(off, end):
        if text[k] == 37:
            end = k
            break
    if end - i >= 2 and text[i] == 58 and text[i + 1] == 58:
        gap, i = 0, i + 2
    good, high, low, before, before_low = end > off, none, none, none, none
    while good and i < end:
        start, value = i, none
        while i < end and text[i] != 58 and text[i] != 46:
            c = np.int64(text[i])
            digit = c - 48 if 48 <= c <= 57 else (c | 32) - 87 if 97 <= c | 32 <= 102 else -1
            good = good and bool(digit >= 0)
            value = value << np.uint64(4) | np.uint64(max(digit, 0))
            i += 1
        if i == start or groups > 7:
            good = False
        elif i < end and text[i] == 46:  # the last 32 bits as IPv4
            four = _ipv4(text, start, end - start)
            good = bool(four >= 0) and groups <= 6
            high, low = high << np.uint64(32) | low >> np.uint64(32), low << np.uint64(32) | np.uint64(max(four, 0))
            groups, i = groups + 2, end
        else:
            good = good and i - start <= 4
            high, low = high << group | low >> np.uint64(48), low << group | value & all_bits
            groups += 1
            if i < end:
                i += 1
                if i == end or (text[i] == 58 and gap >= 0):
                    good = False
                elif text[i] == 58:
                    gap, i, before, before_low, high, low = groups, i + 1, high, low, none, none
    if not good or (gap < 0 and groups != 8) or (gap >= 0 and groups > 7):
        return False, none, none
    for _ in range(8 - gap if gap > 0 else 0):
        before, before_low = before << group | before_low >> np.uint64(48), before_low << group
    return True, before | high, before_low | low


@inlined
def _within6(first: U64, last: U64, high: np.uint64, low: np.uint64) -> bool:
    bottom, top = 0, first.shape[0]
    while bottom < top:
        middle = (bottom + top) >> 1
        if first[middle, 0] < high or (first[middle, 0] == high and first[middle, 1] <= low):
            bottom = middle + 1
        else:
            top = middle
    at = bottom - 1
    return at >= 0 and (high < last[at, 0] or (high == last[at, 0] and low <= last[at, 1]))


@kernel
def listed_address(text: U8, off: int, length: int, first: I64, last: I64, first6: U64, last6: U64) -> bool:
    """Whether the address written in ``text`` is in a range; IPv4 in IPv6 (::ffff:192.0.2.1) is IPv4."""
    if length == 0:
        return False
    four = _ipv4(text, off, length)
    if four < 0:
        six, high, low = _ipv6(text, off, length)
        if not six:
            return False
        if high != np.uint64(0) or low >> np.uint64(32) != np.uint64(0xFFFF):
            return _within6(first6, last6, high, low)
        four = int(low & np.uint64(0xFFFFFFFF))
    return _within(first, last, four)


@kernel
def blocked_node(pool: I64, start: int, nodes: int, blocked: I64) -> bool:
    """Whether one of a chain's ``nodes``, from ``pool[start]``, is blocked by its asi, or by asi and sid."""
    for k in range(start, start + nodes * NODE_WIDTH, NODE_WIDTH):
        asi = pool[k]
        if asi != 0 and (_index(blocked, asi) >= 0 or _index(blocked, hash_combine(asi, pool[k + 1])) >= 0):
            return True
    return False


@kernel
def check_supply(
    n: int, req: I64, imp: I64, pool: I64, text: U8, first: I64, last: I64, first6: U64, last6: U64, blocked: I64,
    domains: I64, authorised: I64, listed: I64,
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
        if first.shape[0] + first6.shape[0] > 0 and (
            listed_address(text, req[r, R_IP_OFF], req[r, R_IP_LEN], first, last, first6, last6)
            or listed_address(text, req[r, R_IPV6_OFF], req[r, R_IPV6_LEN], first, last, first6, last6)
        ):
            why = _PROXY
        elif blocked.shape[0] > 0 and blocked_node(pool, req[r, R_SCHAIN0], req[r, R_SCHAIN_NODES], blocked):
            why = _NODE
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
            n, batch.req, batch.imp, batch.pool, batch.text, tables.first, tables.last, tables.first6, tables.last6,
            tables.blocked, tables.domains, tables.authorised, tables.listed, tables.sellers, tables.placements,
            tables.viewability, tables.fraud, self._systems, self._names, config.complete_chain,
            config.require_ads_txt, config.least_viewability, config.most_fraud, _REASONS, q, refused,
        )  # fmt: skip
