"""What is known of a person: one fixed record of 128 bytes, laid out by ``profile.yaml``.

Fixed layout, so that a read is one copy and kernels address bytes: ``PROFILE`` is the NumPy dtype, the ``P_*``
constants its byte offsets for kernels over uint8[n, PROFILE_BYTES]. Unknown is 0 in bands and 255 in scores, never a
guess. Versions 1 to ``PROFILE_VERSION`` are readable: what a later version added lies where earlier ones wrote zeros,
and there zero means unknown. A test holds the schema to that.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import yaml

SCHEMA_FILE = Path(__file__).with_name("profile.yaml")


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of the schema; see ``profile.yaml``."""

    name: str
    type: str
    group: str
    means: str
    count: int = 1
    since: int = 1
    columns: str = ""
    names: tuple[str, ...] = ()
    largest: int = 0
    unknown: int = 0

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns of a file that fill the field, in its order; none where it isn't loaded as it is."""
        if not self.columns:
            return ()
        return tuple(self.columns.format(name) for name in self.names or range(1, self.count + 1))


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole layout."""

    version: int
    bytes: int
    fields: tuple[Field, ...]

    def dtype(self) -> np.dtype[np.void]:
        """The packed record as a NumPy dtype."""
        return np.dtype([(f.name, f"<{f.type}") if f.count == 1 else (f.name, f"<{f.type}", f.count)
                         for f in self.fields])  # fmt: skip

    def field(self, name: str) -> Field:
        """The field of that name. Raises KeyError."""
        found = next((field for field in self.fields if field.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


def load_schema(file: Path = SCHEMA_FILE) -> Schema:
    """The schema in ``file``."""
    return msgspec.convert(yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), Schema)


SCHEMA = load_schema()
PROFILE = SCHEMA.dtype()
PROFILE_VERSION = SCHEMA.version
PROFILE_BYTES = SCHEMA.bytes
MAX_SEGMENTS = SCHEMA.field("segments").count
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
P_CONSENT_UNTIL = _offset("consent_until_d")
P_SUPPRESS = _offset("suppress")
P_KEY_ID = _offset("key_id")
P_NONCE = _offset("nonce")

CONSENT_PROFILING = 1
CONSENT_FINANCIAL = 2  # PIPL: separate consent for financial data

SUPPRESS_EXISTING = 1
SUPPRESS_REJECTED = 2
SUPPRESS_DELINQUENT = 4
SUPPRESS_DEVICE = 8  # a blacklisted device: nobody bids for it, whatever the product

LIFECYCLE = (
    "none", "registered", "applied", "rejected", "approved", "funded", "delinquent", "existing_customer",
)  # fmt: skip
