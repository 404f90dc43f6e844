"""Supply lists: what is read, when it is taken up, and what a broken file does. What they do: scenarios/supply."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsp.base.config import Config
from dsp.bidder.supply import Supply, SupplyError, load_supply


def written(root: Path, name: str, text: str) -> Path:
    path = root / "supply" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ip_ranges.txt", "192.0.2.0/24\n192.0.2.0/99\n", "ip_ranges.txt:2"),
        ("sellers/alpha.json", "{}", "alpha.json"),
        ("sellers/alpha.json", '{"sellers": [{"id": 1}]}', "seller_id"),
        ("placements.csv", "property,tagid,viewability,fraud\nnews.example,,80,\n", "placements.csv:2"),
        ("placements.csv", "site,tagid\nnews.example,\n", "property"),
    ],
)
def test_a_list_that_cannot_be_used_says_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    written(tmp_path, name, text)
    with pytest.raises(SupplyError, match=said):
        load_supply(tmp_path / "supply")


def test_a_changed_list_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    supply = Supply(Config(data_dir=str(tmp_path)))
    assert not supply.tables.any
    path = written(tmp_path, "ip_ranges.txt", "192.0.2.0/25\n192.0.2.128/25\n2001:db8::/32\n")
    supply.read()
    supply.poll(0)
    assert supply.tables.first.tolist() == [0xC0000200]
    assert supply.tables.last.tolist() == [0xC00002FF]
    path.write_text("everything\n")
    supply.read()
    supply.poll(0)
    assert supply.tables.any
