"""Every alert has a runbook line and fires on recorded series that it is for, and only then."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from documented import metric_names
from ops_tools import K8S, tool

from k8s.monitoring.dashboards import DASHBOARDS, render

CASES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())


def test_every_alert_has_a_case_a_severity_and_a_runbook_line(alert_groups: list[dict[str, Any]]) -> None:
    alerts = [rule for group in alert_groups for rule in group["rules"]]
    assert {rule["alert"] for rule in alerts} == set(CASES)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert len(rule["annotations"]["runbook"]) > 40, rule["alert"]
        assert len(rule["annotations"]["summary"]) > 15, rule["alert"]


def test_alerts_and_dashboards_ask_for_metrics_that_exist(alert_groups: list[dict[str, Any]]) -> None:
    known = metric_names() | {"up"}
    texts = [rule["expr"] for group in alert_groups for rule in group["rules"]]
    texts += [path.read_text() for path in (K8S / "monitoring" / "dashboards").glob("*.json")]
    texts.append((K8S / "monitoring" / "adapter-values.yaml").read_text().replace("dsp_queue_delay_seconds_mean", ""))
    for text in texts:
        for name in re.findall(r"\bdsp_[a-z_]+", text.replace("dsp_bid_requests_per_second", "")):
            assert name in known, name


def test_alerts_fire_on_recorded_series_and_stay_quiet_on_others(
    tmp_path: Path, alert_groups: list[dict[str, Any]]
) -> None:
    promtool = tool("promtool")
    rules = {rule["alert"]: rule for group in alert_groups for rule in group["rules"]}
    files = []
    for alert, case in CASES.items():
        (tmp_path / f"{alert}.rule").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rules[alert]]}]}))
        firing = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}}) > 0'
        tests = [
            {
                "name": f"{alert} {kind}",
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in case[kind].items()],
                "promql_expr_test": [{"expr": firing, "eval_time": case.get("at", "10m"), "exp_samples": expected}],
            }
            for kind, expected in (("fires", [{"labels": f'{{alertname="{alert}"}}', "value": 1}]), ("quiet", []))
        ]
        file = tmp_path / f"{alert}.yaml"
        whole = {"rule_files": [f"{alert}.rule"], "evaluation_interval": "1m", "tests": tests}
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        files.append(str(file))
    command = [promtool, "test", "rules", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_expression_of_the_dashboards_parses(tmp_path: Path) -> None:
    promtool = tool("promtool")
    rules = [
        {"record": f"dashboard:{i}:{k}", "expr": query.replace("$exchange", ".*")}
        for i, dashboard in enumerate(DASHBOARDS.values())
        for k, (_, _, queries) in enumerate(dashboard.panels)
        for query, _ in queries
    ]
    file = tmp_path / "dashboards.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_files_are_what_their_code_says() -> None:
    for name, dashboard in DASHBOARDS.items():
        file = K8S / "monitoring" / "dashboards" / f"{name}.json"
        assert file.read_text() == render(name, dashboard), "run `make reference`"
