"""Every request of the real corpus over every wire, every answer judged by the shared checker."""

import pytest

from bench.corpus import BID_BAR, converter, run_wire
from bench.everything import WIRES
from bench.material import REQUESTS, load_cases, load_check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REQUESTS.exists(), reason="no ../shared/openrtb/requests.jsonl.gz beside the repository"),
]


@pytest.fixture(scope="module", params=WIRES)
def outcome(request, everything):
    client = everything.client(request.param)
    yield run_wire(request.param, client, load_cases(), load_check(), converter(everything.usd))
    client.close()


def test_everything_is_answered_and_ok_requests_are_not_refused(outcome):
    assert outcome.sent > 2000
    assert [failure for failure in outcome.failures if ": E " not in failure] == []


def test_the_checker_finds_no_error_in_any_answer(outcome):
    assert [failure for failure in outcome.failures if ": E " in failure] == []


def test_a_bidder_that_wants_everything_bids_on_most(outcome):
    assert outcome.biddable > 1500
    assert outcome.bid_rate >= BID_BAR, outcome.no_bid[:20]
