"""Capacity on paper: what it says follows from what is measured and assumed, and nothing else."""

from dataclasses import replace

import pytest

from bench.capacity import LEDGER_NOTICES_PER_S, Assumed, main, measured, page, plan

FACTS = {
    "per_core_per_s": {"HTTP JSON": 10_000.0, "gRPC": 20_000.0},
    "request_bytes": {"HTTP JSON": 2_000, "gRPC": 1_000},
    "answer_bytes": {"HTTP JSON": 1_000, "gRPC": 1_000},
    "bid_rate": 0.5,
    "known": 1.0,
}
PLAIN = Assumed(requests_day=86_400 * 100_000, peak=2.0, http=1.0, busy=0.5, scale=1.0, cores=12, zones=1)


def test_cores_are_the_peak_over_what_a_core_takes() -> None:
    result = plan(PLAIN, FACTS)
    assert result["peak_per_s"] == pytest.approx(200_000)
    assert result["cores_at_peak"] == pytest.approx(40)  # 200,000 / (10,000 x 0.5)
    assert result["bidders"] == 4  # of ten cores each
    assert plan(replace(PLAIN, http=0.0), FACTS)["bidders"] == 2
    assert plan(replace(PLAIN, zones=2), FACTS)["bidders"] == 8, "either zone carries the peak alone"
    assert plan(replace(PLAIN, zones=3), FACTS)["bidders"] == 6


def test_notices_and_traffic_follow_bids_and_wins() -> None:
    result = plan(replace(PLAIN, win_rate=0.1, notices_per_win=2.0), FACTS)
    assert result["notices_per_s_mean"] == pytest.approx(10_000)
    assert result["ledgers"] == -(-20_000 // (LEDGER_NOTICES_PER_S * 0.5))
    half = plan(replace(PLAIN, bid_rate=0.25), FACTS)
    assert half["out_gbit_s_peak"] < result["out_gbit_s_peak"]
    assert half["in_gbit_s_peak"] == pytest.approx(result["in_gbit_s_peak"])


def test_it_prints_from_the_kept_results_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    first = capsys.readouterr().out
    assert main(["--json"]) == 0
    assert capsys.readouterr().out == first, "the same figures give the same answer"
    facts = measured()
    assert "<svg" in page(Assumed(), facts, plan(Assumed(), facts))
