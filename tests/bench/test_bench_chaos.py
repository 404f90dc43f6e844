"""A few `kill -9` of ledger, workers and database; `python -m bench chaos` does hundreds."""

import subprocess
import sys

import pytest

from bench.postgres import binaries


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_nothing_acknowledged_is_lost_and_nothing_booked_twice(backend):
    if backend == "postgresql" and binaries() is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    # In a process of its own: it forks, which a test runner with threads should not.
    command = [sys.executable, "-m", "bench", "chaos", "--kills", "6", "--seed", "5", "--backend", backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.startswith("right")
