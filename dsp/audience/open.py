"""The audience of a worker, as the settings ask for it: profiles, frequency states and the table of bids in flight.

    LMDB       Guard(LmdbProfileStore)                  states from their own LMDB file
    Aerospike  HotProfiles(Guard(AerospikeStore))       states that came with the profiles

Above this nobody knows which it is: `Audience.read` fills profiles and states of a batch and never raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dsp.audience.aerospike_store import AerospikeStore
from dsp.audience.cipher import CipherError, RecordCipher
from dsp.audience.consent import FREQUENCY
from dsp.audience.frequency import States
from dsp.audience.guard import Guard
from dsp.audience.hot import HotProfiles
from dsp.audience.inflight import FILE_NAME, InFlight
from dsp.audience.lmdb_frequency import LmdbFrequency, frequency_path
from dsp.audience.lmdb_store import open_profiles
from dsp.audience.store import I64, U8, EmptyStore, ProfileStore, StoreError
from dsp.base.config import Config

MOST_SLOW_MS = 20.0  # a read that takes longer counts as a failure


class FrequencySource(Protocol):
    """Where the states of a batch come from."""

    def read(self, n: int, bits: I64, mask: int, keys: U8, wanted: I64, profiles: U8, found: I64, out: States) -> None:
        """Fill ``out`` for the people i < n with ``bits[i] & mask``, after their profiles were read. Never raises."""
        ...

    def close(self) -> None:
        """Free what it holds; idempotent."""
        ...


class _Along:
    """States that came along with the profiles."""

    def __init__(self, store: AerospikeStore, guard: Guard) -> None:
        self._store, self._guard = store, guard
        self._reads = 0

    def read(self, n: int, bits: I64, mask: int, keys: U8, wanted: I64, profiles: U8, found: I64, out: States) -> None:
        """As `FrequencySource.read`; a batch that the store did not answer has none."""
        stats = self._guard.stats
        failed = stats.errors + stats.skipped
        if failed != self._reads:
            self._reads = failed
            out.known[:n] = 0
        else:
            self._store.states(n, bits, mask, out)

    def close(self) -> None:
        """Nothing of its own."""


@dataclass
class Audience:
    """See the module. One per thread."""

    store: ProfileStore
    frequency: FrequencySource
    inflight: InFlight
    hosts: int  # that bid
    guard: Guard | None = None
    remote: AerospikeStore | None = None

    def budget(self, left_ms: float) -> None:
        """The next read may take this long."""
        if self.remote is not None and self.guard is not None:
            self.remote.budget_ms = self.guard.budget_ms = left_ms

    def states(self, n: int, bits: I64, keys: U8, wanted: I64, profiles: U8, found: I64, out: States) -> None:
        """Fill the states of a batch whose profiles were read, for those who may be counted; never raises."""
        self.frequency.read(n, bits, FREQUENCY, keys, wanted, profiles, found, out)

    def close(self) -> None:
        """Close everything; idempotent."""
        self.store.close()
        self.frequency.close()
        self.inflight.close()


def open_audience(config: Config, store: ProfileStore | None = None) -> Audience:
    """The configured audience, for one reading process; with ``store`` instead of its own. Raises `StoreError`."""
    settings = config.audience
    inflight = InFlight(config.path(FILE_NAME))
    if store is not None or not config.bidder.profile_reads:
        local = LmdbFrequency(frequency_path(config.root))
        guarded = store if isinstance(store, Guard) else None
        return Audience(store if store is not None else EmptyStore(), local, inflight, settings.bidder_hosts, guarded)
    if settings.store == "lmdb":
        local = LmdbFrequency(frequency_path(config.root))
        guard = Guard(open_profiles(config))
        return Audience(guard, local, inflight, settings.bidder_hosts, guard)
    if not settings.aerospike_hosts:
        raise StoreError("audience.aerospike_hosts is empty; list some nodes as name:port")
    try:
        cipher = RecordCipher.from_environment()
    except CipherError as error:
        raise StoreError(str(error)) from error
    remote = AerospikeStore(settings.aerospike_hosts, settings.namespace, timeout_ms=settings.timeout_ms, cipher=cipher)
    guard = Guard(remote, slow_ms=min(MOST_SLOW_MS, settings.timeout_ms))
    top: ProfileStore = guard
    if settings.cache_people:
        top = HotProfiles(guard, config.root, settings.cache_people, settings.cache_s)
    return Audience(top, _Along(remote, guard), inflight, settings.bidder_hosts, guard, remote)
