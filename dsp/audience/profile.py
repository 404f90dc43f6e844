"""What is known of a person: one fixed record of 128 bytes, version 1.

Fixed layout, so that a read is one copy and kernels address bytes: ``PROFILE`` is the NumPy dtype, the ``P_*``
constants its byte offsets for kernels over uint8[n, PROFILE_BYTES]. Unknown is 0 in bands and 255 in scores, never a
guess.
"""

from __future__ import annotations

import numpy as np

PROFILE_VERSION = 1
PROFILE_BYTES = 128
MAX_SEGMENTS = 16

PROFILE = np.dtype(
    [
        ("version", "u1"),
        (
            "consent",
            "u1",
        ),  # CONSENT_* bits on record (PIPL's separate consent, ours), besides the request's signals
        ("age_band", "u1"),  # 0 unknown, 1 18-24, 2 25-34, 3 35-44, 4 45-54, 5 55-64, 6 65+
        ("income_band", "u1"),  # 0 unknown, 1 lowest .. 6 highest
        ("gender", "u1"),  # 0 unknown, 1 female, 2 male
        ("owned", "u1"),  # bit per product
        ("lifecycle", "u1", 5),  # per product, LIFECYCLE_*
        ("intent", "u1", 5),  # per product, 0..254; 255 unknown
        (
            "risk",
            "u1",
            6,
        ),  # device, multi-lender debt, contact activity, social relation, region cluster, qualification
        ("recency_days", "u1"),  # since last seen, 254 = older, 255 unknown
        ("activity", "u1"),  # 0..254
        ("hours", "u1", 3),  # 24-bit mask of active hours
        ("affinity", "u1", 8),  # content affinities, 0..254; 255 unknown
        ("home_region", "u1"),  # region cluster
        ("n_segments", "u1"),
        ("segments", "<u2", MAX_SEGMENTS),  # numbers, ascending
        ("segment_expiry_d", "<u2", MAX_SEGMENTS),  # days since 1970-01-01; 65535 never
        ("person", "<u8"),  # person number, the key of frequency counters
        ("updated_d", "<u2"),
        ("reserved", "u1", 17),
    ]
)
assert PROFILE.itemsize == PROFILE_BYTES, PROFILE.itemsize


def _offset(name: str) -> int:
    fields = PROFILE.fields
    assert fields is not None
    return int(fields[name][1])


P_VERSION = _offset("version")
P_CONSENT = _offset("consent")
P_AGE_BAND = _offset("age_band")
P_INCOME_BAND = _offset("income_band")
P_GENDER = _offset("gender")
P_OWNED = _offset("owned")
P_LIFECYCLE = _offset("lifecycle")
P_INTENT = _offset("intent")
P_RISK = _offset("risk")
P_RECENCY = _offset("recency_days")
P_ACTIVITY = _offset("activity")
P_HOURS = _offset("hours")
P_AFFINITY = _offset("affinity")
P_HOME_REGION = _offset("home_region")
P_N_SEGMENTS = _offset("n_segments")
P_SEGMENTS = _offset("segments")
P_SEGMENT_EXPIRY = _offset("segment_expiry_d")
P_PERSON = _offset("person")
P_UPDATED = _offset("updated_d")

CONSENT_PROFILING = 1
CONSENT_FINANCIAL = 2  # PIPL: separate consent for financial data

LIFECYCLE = (
    "none", "registered", "applied", "rejected", "approved", "funded", "delinquent", "existing_customer",
)  # fmt: skip
