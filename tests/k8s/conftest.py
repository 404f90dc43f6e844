"""What Kustomize makes of k8s/, and the alert rules."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops_tools import K8S, tool


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[dict[str, Any]]]:
    """Every overlay as Kustomize renders it."""
    program = tool("kustomize", "kubectl")
    verb = "build" if Path(program).name == "kustomize" else "kustomize"
    found = {}
    for overlay in ("base", "overlays/dev", "overlays/prod"):
        done = subprocess.run(
            [program, verb, str(K8S / overlay)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        found[overlay] = list(yaml.safe_load_all(done.stdout))
    return found


@pytest.fixture(scope="session")
def alert_groups() -> list[dict[str, Any]]:
    """The rule groups of the PrometheusRule."""
    groups: list[dict[str, Any]] = yaml.safe_load((K8S / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]
    return groups
