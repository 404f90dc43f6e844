"""The compiled schema as constants inside the kernels: each name, called, is the table's address there."""

from __future__ import annotations

from dsp.base.memory import constant
from dsp.openrtb import record as r
from dsp.openrtb import schema as s

defaults = constant("openrtb_defaults", r.DEFAULTS)
kind_of = constant("openrtb_kind_of", s.KIND_OF)
column_of = constant("openrtb_column_of", s.COLUMN_OF)
context_of = constant("openrtb_context_of", s.CONTEXT_OF)
hook_of = constant("openrtb_hook_of", s.HOOK_OF)
field_of = constant("openrtb_field_of", s.FIELD_OF)
keys = constant("openrtb_keys", s.KEYS)
key_multiplier = constant("openrtb_key_multiplier", s.KEY_MULTIPLIER)
key_shift = constant("openrtb_key_shift", s.KEY_SHIFT)
key_first = constant("openrtb_key_first", s.KEY_FIRST)
