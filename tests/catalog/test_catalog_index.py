"""The bitmap index against plain sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp.catalog.index import IndexBuilder, build_table, find_row
from dsp.catalog.layout import DIM_GEO, DIM_NOT_GEO, DIM_OS, N_DIMS

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUE = INT64.filter(bool)


def bits(row) -> set[int]:
    return {w * 64 + b for w, word in enumerate(row.tolist()) for b in range(64) if word >> b & 1}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, N_DIMS - 1), VALUE), st.integers(0, 2**31 - 1), max_size=80), VALUE)
def test_the_table_finds_what_was_put_in_and_nothing_else(entries, stranger):
    dims = np.array([d for d, _ in entries], np.int64)
    values = np.array([v for _, v in entries], np.int64)
    keys, rows = build_table(dims, values, np.array(list(entries.values()), np.int32))
    assert len(keys) == len(rows)
    assert len(keys) & (len(keys) - 1) == 0
    assert np.count_nonzero(keys) * 2 <= len(keys)
    for (dim, value), row in entries.items():
        assert find_row(keys, rows, dim, value) == row
    for dim in range(N_DIMS):
        if (dim, stranger) not in entries:
            assert find_row(keys, rows, dim, stranger) == -1
        assert find_row(keys, rows, dim, 0) == -1


def test_a_value_whose_key_would_be_zero_is_found():
    from dsp.catalog.layout import DIM_KEY_MULTIPLIER

    value = np.array([4 * DIM_KEY_MULTIPLIER % 2**64], np.uint64).view(np.int64)
    keys, rows = build_table(np.array([3]), value, np.array([5], np.int32))
    assert find_row(keys, rows, 3, value[0]) == 5


RULES = st.lists(
    st.tuples(st.sampled_from([DIM_GEO, DIM_OS]), st.sets(st.integers(1, 6), max_size=3), st.integers(0, 129)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(RULES, RULES)
def test_rows_hold_the_line_items_that_accept_or_refuse(accepts, refuses):
    n = 130
    builder = IndexBuilder(n)
    wanted: dict[tuple[int, int], set[int]] = {}
    for dim, values, item in accepts:
        builder.accept(dim, values, item)
        for value in values | {0}:
            wanted.setdefault((dim, item), set()).add(value)
    unwanted: set[tuple[int, int]] = set()
    for _, values, item in refuses:
        builder.refuse(DIM_NOT_GEO, values, item)
        unwanted |= {(value, item) for value in values}
    a = builder.build(DIM_NOT_GEO)
    for dim in (DIM_GEO, DIM_OS):
        free = {i for i in range(n) if (dim, i) not in wanted}
        assert bits(a["rows"][a["dim_any"][dim]]) == free
        for value in range(1, 7):
            row = find_row(a["dim_keys"], a["dim_rows"], dim, value)
            expected = free | {i for (d, i), values in wanted.items() if d == dim and value in values}
            assert bits(a["rows"][row if row >= 0 else a["dim_any"][dim]]) == expected
        assert a["dim_used"][dim] == any(d == dim for d, _ in wanted)
    assert a["dim_any"][DIM_NOT_GEO] == -1
    for value in range(1, 7):
        row = find_row(a["dim_keys"], a["dim_rows"], DIM_NOT_GEO, value)
        assert (bits(a["rows"][row]) if row >= 0 else set()) == {i for v, i in unwanted if v == value}


def test_equal_rows_are_stored_once():
    builder = IndexBuilder(10)
    builder.accept(DIM_GEO, range(1, 300), 4)
    assert len(builder.build(DIM_NOT_GEO)["rows"]) == 2  # everybody; everybody but line item 4
