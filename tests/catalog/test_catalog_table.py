"""Rows and columns of the same thing."""

from __future__ import annotations

import pytest

from dsp.catalog.table import Table

TABLE = Table({"id": [1, 2], "name": ["a", "b"]})


def test_rows_by_iteration_columns_by_name():
    assert list(TABLE) == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert TABLE["name"] == ["a", "b"]
    assert TABLE[1] == {"id": 2, "name": "b"}
    assert len(TABLE) == 2
    assert list(Table({})) == []
    assert list(Table({"id": []})) == []
    assert Table({"id": [1, 2], "name": ("a", "b")}) == TABLE


def test_what_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        TABLE["other"]
    with pytest.raises(IndexError):
        TABLE[2]
    with pytest.raises(ValueError, match="length"):
        Table({"id": [1], "name": []})
