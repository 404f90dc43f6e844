"""One bidder that wants everything, for all conformance tests of a session."""

import pytest

from bench.everything import everything_bidder


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """A running `bench.everything.Bidder`."""
    with everything_bidder(tmp_path_factory.mktemp("everything")) as bidder:
        yield bidder
