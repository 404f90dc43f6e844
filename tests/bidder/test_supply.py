"""Supply lists: what is read, when it is taken up, and what a broken file does. What they do: scenarios/supply."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np
import pytest

from dsp.base.config import Config
from dsp.bidder.supply import Supply, listed_address
from dsp.bidder.supply_files import SupplyError, load_supply


def written(root: Path, name: str, text: str) -> Path:
    path = root / "supply" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ip_ranges.txt", "192.0.2.0/24\n192.0.2.0/99\n", "ip_ranges.txt:2"),
        ("ip_ranges.txt", "# v6\n2001:db8::/129\n", "ip_ranges.txt:2.*129"),
        ("ip_ranges.txt", "2001:db8:::/32\n", "ip_ranges.txt:1"),
        ("schain_blocked.txt", "bad.example\nbad.example,\n", "schain_blocked.txt:2: a node is asi or asi,sid"),
        ("schain_blocked.txt", "a,b,c\n", "schain_blocked.txt:1"),
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
    assert supply.tables.first6.tolist() == [[0x20010DB8 << 32, 0]]
    (tmp_path / "new").write_text("everything\n")
    (tmp_path / "new").replace(path)  # as a whole: the supply's own thread may be reading
    supply.read()
    supply.poll(0)
    assert supply.tables.any


def test_addresses_are_found_as_the_standard_library_finds_them(tmp_path: Path) -> None:
    """Both families, both written forms, at the edges of ranges and beside them; and odd text is in no range."""
    networks = [
        "2001:db8::/32", "2001:db9:0:1::/64", "fd00::/8", "2400:cb00:2048:1::c629:d7a2/128", "::/96",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/112", "192.0.2.0/24", "203.0.113.7/32",
    ]  # fmt: skip
    written(tmp_path, "ip_ranges.txt", "\n".join(networks))
    tables = load_supply(tmp_path / "supply")
    of = [ipaddress.ip_network(text) for text in networks]

    def listed(text: str) -> bool:
        raw = np.frombuffer(text.encode() or b"-", np.uint8)
        return bool(listed_address(raw, 0, len(text), tables.first, tables.last, tables.first6, tables.last6))

    tried = 0
    for network in of:
        for number in (network[0], network[-1]):
            for step in (-1, 0, 1):
                size = type(number)
                try:
                    address = size(int(number) + step)
                except ValueError:
                    continue
                expected = any(address in each for each in of if each.version == address.version)
                for text in {str(address), address.exploded, str(address).upper()}:
                    assert listed(text) == expected, text
                    tried += 1
    assert tried > 40
    assert listed("::ffff:192.0.2.200")
    assert not listed("::ffff:192.0.3.0")
    assert listed("::192.0.3.0")
    assert listed("2001:db8::1%eth0")
    for odd in (
        "",
        ":",
        "::",
        ":::",
        "2001:db8",
        "2001:db8::1::2",
        "2001:db8:1:2:3:4:5:6:7",
        "2001:db8::g",
        "2001:db8:",
    ):
        assert listed(odd) == (odd == "::"), odd
    for odd in ("2001:db8::12345", "2001:db8::1.2.3", "1:2:3:4:5:6:7::8", "192.0.2", "192.0.2.256"):
        assert not listed(odd), odd
