"""The schema of a profile, as data: what may change, and what may not."""

from __future__ import annotations

import numpy as np
import pytest
from store_conformance import record

from dsp.audience.profile import PROFILE, PROFILE_BYTES, PROFILE_VERSION, SCHEMA
from dsp.audience.store import settle_rows

# Version 1 as it was first written: its fields and their places are for ever.
VERSION_1 = {
    "version": 0, "consent": 1, "age_band": 2, "income_band": 3, "gender": 4, "owned": 5, "lifecycle": 6, "intent": 11,
    "risk": 16, "recency_days": 22, "activity": 23, "hours": 24, "affinity": 27, "home_region": 35, "n_segments": 36,
    "segments": 37, "segment_expiry_d": 69, "person": 101, "updated_d": 109,
}  # fmt: skip


def test_no_field_ever_moves() -> None:
    fields = PROFILE.fields
    assert fields is not None
    assert {name: fields[name][1] for name in VERSION_1} == VERSION_1
    assert PROFILE.itemsize == PROFILE_BYTES == SCHEMA.bytes


def test_zero_means_unknown_in_what_was_added_later() -> None:
    for field in SCHEMA.fields:
        assert 1 <= field.since <= PROFILE_VERSION
        assert (field.since == 1) == (field.name in VERSION_1)
        if field.since > 1:
            assert field.unknown == 0, f"{field.name}: an older record has zero there"


@pytest.mark.parametrize(("version", "readable"), [(0, 0), (1, 1), (PROFILE_VERSION, 1), (PROFILE_VERSION + 1, 0)])
def test_records_of_every_version_so_far_are_readable(version: int, readable: int) -> None:
    rows = np.frombuffer(record(7, version=version), np.uint8).reshape(1, PROFILE_BYTES).copy()
    found = np.zeros(1, np.int64)
    assert settle_rows(rows, found) == (readable, 1 - readable)
    assert found[0] == readable
    if version == 1:
        old = rows.view(PROFILE)[0, 0]
        assert (old["consent_until_d"], old["consent_source"], old["suppress"], old["key_id"]) == (0, 0, 0, 0)


def test_every_field_says_what_it_means() -> None:
    for field in SCHEMA.fields:
        assert field.means, field.name
        assert field.group in {
            "identity", "consent", "demographic", "financial", "behaviour", "risk", "segments", "protection"
        }  # fmt: skip
        assert not field.names or len(field.names) == field.count
