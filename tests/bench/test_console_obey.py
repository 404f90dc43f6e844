"""What is stopped in the browser is stopped at the bidders within two seconds, through every process on the way."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from bench.console_live import LiveSystem
from bench.console_obey import BAR_S, STOPS, browser, obeyed


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_bidders_obey_the_browser_within_two_seconds(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        if os.environ.get("DSP_REQUIRE_BROWSER"):
            pytest.fail("no Chromium is installed")
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with LiveSystem(tmp_path, 150.0) as system, browser(system) as page:
        time.sleep(3.0)  # until what is to be stopped has spent something
        found = obeyed(system, page, turns=1, watch_s=3.0)
    assert [one.what for one in found] == list(STOPS)
    assert {one.what: one.seconds for one in found if one.seconds > BAR_S} == {}
