"""Grafana dashboards as code: what each shows, and the JSON that Grafana's sidecar loads.

`python -m k8s.monitoring.dashboards` writes ``dashboards/*.json``; a test fails when they differ from this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# title, unit, [(expression, legend)]
Panel = tuple[str, str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    title: str
    panels: list[Panel]


def rate(metric: str, by: str = "") -> str:
    """Per second, over what Grafana thinks fits the zoom, added up by a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[5m]))"


def quantile(q: float, metric: str, which: str = "") -> str:
    """A quantile of a histogram, of all pods together; ``which`` is a label selector."""
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{which}[5m])))"


OF = 'exchange=~"$exchange"'
DASHBOARDS: dict[str, Dashboard] = {
    "exchange": Dashboard(
        "DSP: exchanges",
        [
            ("Requests", "reqps", [(rate(f"dsp_bid_requests_total{{{OF}}}", "exchange"), "{{exchange}}")]),
            ("What became of them", "reqps", [(rate(f"dsp_bid_requests_total{{{OF}}}", "outcome"), "{{outcome}}")]),
            (
                "Bid rate",
                "percentunit",
                [
                    (
                        rate(f'dsp_bid_requests_total{{{OF},outcome="bid"}}', "exchange")
                        + " / "
                        + rate(f"dsp_bid_requests_total{{{OF}}}", "exchange"),
                        "{{exchange}}",
                    )
                ],
            ),
            ("Bids by medium", "reqps", [(rate(f"dsp_bids_total{{{OF}}}", "media"), "{{media}}")]),
            ("No-bid reasons", "reqps", [(f"topk(10, {rate('dsp_no_bid_total', 'reason')})", "nbr {{reason}}")]),
            ("Malformed, by reason", "reqps", [(rate("dsp_bad_requests_total", "reason"), "{{reason}}")]),
        ],
    ),
    "supply": Dashboard(
        "DSP: supply and platforms",
        [
            (
                "Refused for their supply",
                "reqps",
                [(rate(f"dsp_supply_refused_total{{{OF}}}", "reason"), "{{reason}}")],
            ),
            (
                "Dearer copies of one impression",
                "reqps",
                [(rate(f'dsp_supply_refused_total{{{OF},reason="duplicate"}}', "exchange"), "{{exchange}}")],
            ),
            ("Shaping", "reqps", [(rate(f"dsp_shaped_requests_total{{{OF}}}", "what"), "{{what}}")]),
            (
                "Shaping: a day's money",
                "currencyUSD",
                [
                    (f"86400e-9 * {rate(f'dsp_shaped_lost_micros_total{{{OF}}}')}", "lost"),
                    (f"86400e-9 * {rate(f'dsp_shaped_saved_micros_total{{{OF}}}')}", "saved"),
                ],
            ),
            ("RTA", "reqps", [(rate(f"dsp_rta_requests_total{{{OF}}}", "outcome"), "{{outcome}}")]),
            ("RTA: accepted", "reqps", [(rate(f"dsp_rta_accepts_total{{{OF}}}", "exchange"), "{{exchange}}")]),
            ("ARTF", "reqps", [(rate("dsp_artf_requests_total", "outcome"), "{{outcome}}")]),
            ("ARTF: mutations", "reqps", [(rate("dsp_artf_mutations_total", "intent"), "{{intent}}")]),
        ],
    ),
    "bidder": Dashboard(
        "DSP: bidder",
        [
            (
                "Answer time",
                "s",
                [(quantile(q, "dsp_request_seconds"), f"p{100 * q:g}") for q in (0.5, 0.95, 0.99, 0.999)],
            ),
            ("Queue delay", "s", [(quantile(q, "dsp_queue_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)]),
            ("Shed", "reqps", [(rate("dsp_shed_total", "reason"), "{{reason}}")]),
            (
                "Time by stage, per request",
                "s",
                [
                    (
                        rate('dsp_stage_seconds_sum{stage!="total"}', "stage")
                        + " / scalar("
                        + rate("dsp_batch_size_sum")
                        + ")",
                        "{{stage}}",
                    )
                ],
            ),
            ("Requests per batch", "short", [(rate("dsp_batch_size_sum") + " / " + rate("dsp_batch_size_count"), "")]),
            (
                "Workers",
                "short",
                [("sum(dsp_workers)", "serving"), ("sum(increase(dsp_worker_restarts_total[5m]))", "died in 5 min")],
            ),
            ("Waiting", "short", [("sum by (pod) (dsp_queue_depth)", "{{pod}}")]),
            (
                "Lost",
                "short",
                [
                    (rate("dsp_engine_errors_total"), "failed batches/s"),
                    (rate("dsp_decisions_dropped_total"), "log rows/s"),
                    (rate("dsp_imps_dropped_total"), "imps/s"),
                ],
            ),
        ],
    ),
    "money": Dashboard(
        "DSP: money",
        [
            ("Spend per hour", "short", [("3600 * sum(deriv(dsp_ledger_posted_micros[15m])) / 1e6", "posted")]),
            (
                "Owed and open",
                "short",
                [
                    ("dsp_ledger_payable_micros / 1e6", "payable"),
                    ("dsp_ledger_outstanding_micros / 1e6", "granted"),
                    ("dsp_ledger_disputed_micros / 1e6", "disputed"),
                    ("dsp_ledger_overspend_micros / 1e6", "beyond budgets"),
                ],
            ),
            ("Events booked", "short", [(rate("dsp_ledger_events_total", "kind"), "{{kind}}")]),
            ("Odd notices", "short", [(rate("dsp_ledger_discrepancies_total", "kind"), "{{kind}}")]),
            ("Requests", "reqps", [(rate("dsp_ledger_requests_total", "path, result"), "{{path}} {{result}}")]),
            (
                "Waiting",
                "short",
                [("dsp_ledger_queue_depth", "in the queue"), ("dsp_ledger_spooled", "on disk, for the database")],
            ),
            (
                "Time of a transaction",
                "s",
                [(rate("dsp_ledger_commit_seconds_total") + " / " + rate("dsp_ledger_commits_total"), "mean")],
            ),
            ("Stopped, leases", "short", [("dsp_ledger_stopped", "stopped"), ("dsp_ledger_leases", "leases")]),
        ],
    ),
    "model": Dashboard(
        "DSP: model and catalog",
        [
            (
                "Version in use",
                "short",
                [
                    ("max(dsp_model_version)", "model"),
                    ("max(dsp_snapshot_version)", "snapshot"),
                    ("max(dsp_ledger_snapshot_version)", "snapshot, ledger"),
                ],
            ),
            (
                "Pods that lag behind",
                "short",
                [
                    ("count(dsp_model_version < scalar(max(dsp_model_version))) or vector(0)", "model"),
                    ("count(dsp_snapshot_version < scalar(max(dsp_snapshot_version))) or vector(0)", "snapshot"),
                ],
            ),
            (
                "Scoring, per batch",
                "s",
                [(quantile(q, "dsp_stage_seconds", '{stage="score"}'), f"p{100 * q:g}") for q in (0.5, 0.99)],
            ),
            (
                "Wins per bid",
                "percentunit",
                [(rate('dsp_ledger_events_total{kind="win"}') + " / " + rate("dsp_bids_total"), "won")],
            ),
            (
                "Funnel, events per win",
                "percentunit",
                [
                    (
                        rate('dsp_ledger_events_total{kind=~"click|applied|approved|funded|defaulted"}', "kind")
                        + " / scalar("
                        + rate('dsp_ledger_events_total{kind="win"}')
                        + ")",
                        "{{kind}}",
                    )
                ],
            ),
        ],
    ),
    "audience": Dashboard(
        "DSP: audience and consent",
        [
            ("Profile joins", "reqps", [(rate("dsp_profiles_total", "result"), "{{result}}")]),
            (
                "Recognised, of those allowed",
                "percentunit",
                [
                    (
                        rate('dsp_profiles_total{result="found"}')
                        + " / "
                        + rate('dsp_profiles_total{result=~"found|missing"}'),
                        "",
                    )
                ],
            ),
            ("What consent allows", "reqps", [(rate("dsp_consent_total", "decision"), "{{decision}}")]),
            ("Batched read", "s", [(quantile(q, "dsp_store_seconds"), f"p{100 * q:g}") for q in (0.5, 0.99)]),
            ("Failed reads", "reqps", [(rate("dsp_store_errors_total", "kind"), "{{kind}}")]),
        ],
    ),
    "console": Dashboard(
        "DSP: console",
        [
            ("Requests", "reqps", [(rate("dsp_console_requests_total", "status"), "{{status}}")]),
            (
                "Failed, by route",
                "reqps",
                [(rate('dsp_console_requests_total{status="5xx"}', "method, route"), "{{method}} {{route}}")],
            ),
            (
                "Answer time of pages",
                "s",
                [
                    (quantile(q, "dsp_console_request_seconds", '{method="GET"}'), f"p{100 * q:g}")
                    for q in (0.5, 0.95, 0.99)
                ],
            ),
            (
                "Slowest routes, mean",
                "s",
                [
                    (
                        f"topk(8, {rate('dsp_console_request_seconds_sum', 'method, route')}"
                        f" / {rate('dsp_console_request_seconds_count', 'method, route')})",
                        "{{method}} {{route}}",
                    )
                ],
            ),
            ("Tries to come in", "short", [("sum by (by, outcome) (increase(dsp_console_sign_ins_total[15m]))",
                                            "{{by}} {{outcome}}")]),
            (
                "Publishing changes",
                "s",
                [
                    (quantile(0.95, "dsp_console_publish_seconds"), "p95"),
                    ("max(dsp_console_publish_lag_seconds)", "since bidders had every change"),
                    ("sum(increase(dsp_console_publish_failures_total[5m]))", "failures in 5 min"),
                ],
            ),
            (
                "Open",
                "short",
                [
                    ("sum(dsp_console_requests_open)", "requests"),
                    ("sum(dsp_console_report_jobs_open)", "reports being written"),
                ],
            ),
            ("Reports written, per hour", "short", [("sum by (outcome) (increase(dsp_console_report_jobs_total[1h]))",
                                                     "{{outcome}}")]),
        ],
    ),
}  # fmt: skip


def render(name: str, dashboard: Dashboard) -> str:
    """The dashboard as the JSON that Grafana imports."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels: list[dict[str, Any]] = [
        {
            "id": i + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + k), "datasource": source, "expr": expression, "legendFormat": legend or title}
                for k, (expression, legend) in enumerate(queries)
            ],
        }
        for i, (title, unit, queries) in enumerate(dashboard.panels)
    ]
    variables: list[dict[str, Any]] = [{"name": "source", "label": "Prometheus", "type": "datasource",
                                        "query": "prometheus"}]  # fmt: skip
    if any(OF in expression for _, _, queries in dashboard.panels for expression, _ in queries):
        query = "label_values(dsp_bid_requests_total, exchange)"
        choice = {"multi": True, "includeAll": True, "allValue": ".*", "current": {"value": "$__all"}}
        of = {"name": "exchange", "type": "query", "datasource": source, "query": query, "refresh": 2}
        variables.append({**of, **choice})
    page = {
        "uid": f"dsp-{name}",
        "title": dashboard.title,
        "tags": ["dsp"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(page, indent=1) + "\n"


def main() -> None:
    """Write every dashboard."""
    directory = Path(__file__).parent / "dashboards"
    for name, dashboard in DASHBOARDS.items():
        (directory / f"{name}.json").write_text(render(name, dashboard))


if __name__ == "__main__":
    main()
