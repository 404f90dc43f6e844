"""Tools of the operators' trade; without one its tests are skipped, in CI (DSP_REQUIRE_OPS) they fail instead."""

import os
import shutil
from pathlib import Path

import pytest

K8S = Path(__file__).parents[2] / "k8s"


def tool(*names: str) -> str:
    """The first of these programs that there is."""
    for name in names:
        if found := shutil.which(name):
            return found
    if os.environ.get("DSP_REQUIRE_OPS"):
        pytest.fail(f"none of {', '.join(names)} is installed")
    pytest.skip(f"needs one of {', '.join(names)}")
