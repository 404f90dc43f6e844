"""What the ledger says of itself: totals that reconcile with notices, and metrics as Prometheus text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dsp.ledger.accounts import ADVERTISER, CAMPAIGN, DISPUTE, LINE_ITEM, PAYABLE
from dsp.ledger.books import Books
from dsp.ledger.periods import ALL_TIME
from dsp.ledger.writer import Writer
from dsp.log.outcomes import OUTCOMES


def totals(books: Books) -> dict[str, Any]:
    """Everything ever booked: amounts in micros of account currencies, per event kind and per account.

    ``spend_micros`` is what was posted to line items; ``events[kind]`` has ``n``, ``charge_micros`` (what those notices
    amount to), ``posted_micros`` (what of it was posted) and ``value`` (whole units).
    """
    events = {name: {"n": 0, "charge_micros": 0, "posted_micros": 0, "value": 0.0} for name in OUTCOMES}
    line_items: dict[int, dict[str, int]] = {}
    for (line_item, kind), (n, charge, posted, value) in books.tallies.items():
        total = events[OUTCOMES[kind]]
        total["n"] += int(n)
        total["charge_micros"] += int(charge)
        total["posted_micros"] += int(posted)
        total["value"] += value
        line_items.setdefault(line_item, {})[OUTCOMES[kind]] = int(n)
    spend = _by_ref(books, LINE_ITEM)
    for line_item, micros in spend.items():
        line_items.setdefault(line_item, {})["spend_micros"] = micros
    return {
        "spend_micros": sum(spend.values()),
        "payable_micros": -sum(_by_ref(books, PAYABLE).values()),
        "disputed_micros": sum(_by_ref(books, DISPUTE).values()),
        "overspend_micros": sum(account.overspend() for account in books.granting.accounts.values()),
        "events": events,
        "counts": dict(books.counts),
        "line_items": {str(key): value for key, value in sorted(line_items.items())},
        "campaigns": {str(key): micros for key, micros in sorted(_by_ref(books, CAMPAIGN).items())},
        "advertisers": {str(key): micros for key, micros in sorted(_by_ref(books, ADVERTISER).items())},
    }


def _by_ref(books: Books, kind: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for (of_kind, ref, _, _), (debit, credit) in books.balances().items():
        if of_kind == kind:
            found[ref] = found.get(ref, 0) + debit - credit
    return found


def metrics_text(books: Books, writer: Writer, requests: Counter[tuple[str, str]], log_dropped: int) -> str:
    """Prometheus text format 0.0.4. Labels come from fixed sets only."""
    everything = totals(books)
    granting = books.granting
    outstanding = sum(a.outstanding.get(ALL_TIME, 0) for a in granting.accounts.values() if a.kind == LINE_ITEM)
    lines: list[str] = []

    def metric(name: str, kind: str, text: str, rows: list[tuple[str, float]]) -> None:
        lines.append(f"# HELP dsp_ledger_{name} {text}\n# TYPE dsp_ledger_{name} {kind}")
        lines.extend(f"dsp_ledger_{name}{labels} {value}" for labels, value in rows)

    metric(
        "requests_total",
        "counter",
        "Requests by path and result.",
        [(f'{{path="{path}",result="{result}"}}', n) for (path, result), n in sorted(requests.items())],
    )
    metric(
        "events_total",
        "counter",
        "Events booked, by kind.",
        [(f'{{kind="{name}"}}', row["n"]) for name, row in everything["events"].items()],
    )
    metric(
        "discrepancies_total",
        "counter",
        "Notices that were odd, by how.",
        [(f'{{kind="{name}"}}', n) for name, n in sorted(books.counts.items())],
    )
    metric("posted_micros", "gauge", "Spend of all line items.", [("", everything["spend_micros"])])
    metric("payable_micros", "gauge", "Owed to exchanges by their notices.", [("", everything["payable_micros"])])
    metric("disputed_micros", "gauge", "Charged beyond reservations.", [("", everything["disputed_micros"])])
    metric("overspend_micros", "gauge", "Posted beyond total budgets.", [("", everything["overspend_micros"])])
    metric("outstanding_micros", "gauge", "Granted to workers and not spent.", [("", outstanding)])
    metric("leases", "gauge", "Worker leases alive.", [("", sum(not x.over for x in granting.leases.values()))])
    metric("epoch", "gauge", "Number of this ledger's life.", [("", books.epoch)])
    metric("snapshot_version", "gauge", "Snapshot whose budgets are in force.", [("", granting.plan.version)])
    metric("queue_depth", "gauge", "Notices and calls waiting.", [("", writer.depth)])
    metric("stopped", "gauge", "Line items and more that a brake or a person stopped.", [("", len(books.stops))])
    metric("spooled", "gauge", "Notices on disk that wait for the database.", [("", writer.pending)])
    metric("spooled_total", "counter", "Notices kept on disk while the database was away.", [("", writer.spooled)])
    metric("commits_total", "counter", "Transactions.", [("", writer.batches)])
    metric("committed_total", "counter", "Notices and calls in them.", [("", writer.items)])
    metric("commit_seconds_total", "counter", "Time in them.", [("", writer.commit_seconds)])
    metric("commit_failures_total", "counter", "Transactions that failed.", [("", writer.failures)])
    metric("outcomes_dropped_total", "counter", "Outcome rows the log had no room for.", [("", log_dropped)])
    return "\n".join(lines) + "\n"
