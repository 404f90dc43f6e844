"""A small demo, end to end through real processes; and how its figures are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsp.base.config import Config
from dsp.market.demo import Demo, example_catalog, quantile_ms
from dsp.market.roles import RoleError, Roles, free_ports


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_small_demo_reconciles(tmp_path: Path) -> None:
    demo = Demo(Config(data_dir=str(tmp_path)), 4.0, 120.0, 3000, 2000, quiet=True)
    report = demo.run(example_catalog())
    rare = {"no clicks", "no applications", "no approvals"}  # in so short a time
    assert set(report.failures) <= rare, report.failures
    micros = report.figures["spend_micros"]
    assert micros["notices"] == micros["ledger"] == micros["sql"] > 0
    assert report.figures["wins"] > 0
    assert report.figures["bid_rate"] > 0.4
    assert report.figures["bidder_p50_ms"] > 0


def test_a_quantile_is_its_buckets_edge() -> None:
    text = 'x_bucket{le="0.001"} 50.0\nx_bucket{le="0.01"} 99.0\nx_bucket{le="+Inf"} 100.0\nx_count 100.0\n'
    assert quantile_ms(text, "x", 0.5) == 1.0
    assert quantile_ms(text, "x", 0.99) == 10.0
    assert quantile_ms(text, "y", 0.5) == 0.0


def test_a_role_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text("nonsense: 1\n")
    with Roles(config, tmp_path / "run") as roles:
        role = roles.start("ledger", ["ledger"])
        with pytest.raises(RoleError, match=r"(?s)ledger ended with status 2.*nonsense"):
            roles.wait_ready(role, "http://127.0.0.1:9/readyz", 60.0)
    assert role.process.returncode is not None


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5
