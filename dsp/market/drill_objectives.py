"""What a drill demands, and the verdicts: each objective is a bar that was written down before the drill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsp.market.drill_faults import Fault
from dsp.market.live import Tally
from dsp.market.notices import Books, Courier

OFFERED = 0.95  # of the planned auctions must have been held, or nothing was tested
QUIET_BAD = 0.01  # unanswered or failed, of the requests while nothing is wrong
FAULT_BAD = 0.05  # the same while something is, and as long as it takes to heal
QUIET_P99_MS = 100.0
RECOVERY_S = 10.0
SWAP_S = 5.0
CONSOLE_P95_MS = 1000.0
SWAPS = ("model", "snapshot")
TAIL_S = 1.0  # after a fault has healed: requests that began before


class Objective(NamedTuple):
    """A bar, what was measured, and whether it was held."""

    what: str
    bar: str
    measured: str
    ok: bool


@dataclass(frozen=True)
class Sample:
    """Half a second, or the counts up to a moment: `since` makes the one from two of the other."""

    at_s: float
    asked: int
    answered: int
    bad: int  # timeouts, errors, responses an exchange would refuse
    bids: int
    acknowledged: int  # notices
    pending: int  # notices that are not acknowledged yet
    console_errors: int
    p99_ms: float = 0.0

    @classmethod
    def of(cls, at_s: float, tally: Tally, books: Books, courier: Courier, console_errors: int) -> Sample:
        """The counts so far."""
        bad = tally.timeouts + tally.errors + tally.invalid
        acknowledged = sum(books.events.values())
        return cls(
            at_s, tally.asked, tally.answered, bad, tally.bids, acknowledged, courier.pending, console_errors
        )  # fmt: skip

    def since(self, before: Sample, p99_ms: float) -> Sample:
        """What happened since ``before``."""
        return Sample(
            self.at_s, self.asked - before.asked, self.answered - before.answered, self.bad - before.bad,
            self.bids - before.bids, self.acknowledged - before.acknowledged, self.pending,
            self.console_errors - before.console_errors, p99_ms,
        )  # fmt: skip


def troubled(at_s: float, faults: Sequence[Fault]) -> bool:
    """Whether a fault, or its healing, falls into the half second that ends at ``at_s``."""
    return any(
        fault.at_s <= at_s and at_s - 0.5 <= max(fault.healed_s, fault.ended_s, fault.at_s) + TAIL_S
        for fault in faults
    )  # fmt: skip


def judge(samples: Sequence[Sample], faults: Sequence[Fault], f: dict[str, Any]) -> list[Objective]:
    """Every objective, in the order of the report; ``f`` are the drill's figures."""
    quiet = [sample for sample in samples if not troubled(sample.at_s, faults)]
    hurt = [sample for sample in samples if troubled(sample.at_s, faults)]
    held = f["asked"] / max(1, f["planned"])
    slow = float(np.median([s.p99_ms for s in quiet if s.asked])) if quiet else 0.0
    found = [
        Objective("the load was offered", f"{OFFERED:.0%} of what was planned", f"{held:.1%}", held >= OFFERED),
        _bad("unanswered or failed while all is well", quiet, QUIET_BAD),
        Objective(
            "p99 at the caller, while all is well", f"{QUIET_P99_MS:g} ms", f"{slow:.1f} ms", slow <= QUIET_P99_MS
        ),
        Objective("answers an exchange would refuse", "0", f"{f['invalid']:,}", f["invalid"] == 0),
    ]
    if faults:
        found.append(_bad("unanswered or failed during faults", hurt, FAULT_BAD))
    for fault in faults:
        bar = SWAP_S if fault.name in SWAPS else RECOVERY_S
        ok = not fault.failed and 0 <= fault.recovery_s <= bar
        measured = fault.failed or f"{fault.recovery_s:.1f} s"
        found.append(Objective(f"well again after: {fault.says}", f"{bar:g} s", measured, ok))
    if f["console"]:
        found += [
            Objective("console reads that failed", "0", f"{f['console_errors']} of {f['console_reads']:,}",
                      f["console_errors"] == 0 and f["console_reads"] > 0),
            Objective("console reads, p95", f"{CONSOLE_P95_MS:g} ms", f"{f['console_p95_ms']:.0f} ms",
                      f["console_p95_ms"] <= CONSOLE_P95_MS),
        ]  # fmt: skip
    spend = f["spend_micros"]
    found += [
        Objective("notices never acknowledged", "0", f"{f['unsettled']} of {f['notices'] + f['unsettled']:,}",
                  f["unsettled"] == 0 and f["notices"] > 0),
        Objective("spend, line item by line item: notices = ledger = entries", "to the micro",
                  f"{spend['notices']:,}, {spend['ledger']:,}, {spend['entries']:,} micros",
                  bool(f["reconciled"]) and spend["notices"] > 0),
        Objective("every balance is the sum of its entries", "all", f["broken"] or f"{f['audited']} accounts",
                  not f["broken"] and f["audited"] > 0),
    ]  # fmt: skip
    return found


def _bad(what: str, samples: Sequence[Sample], bar: float) -> Objective:
    asked, bad = sum(s.asked for s in samples), sum(s.bad for s in samples)
    return Objective(what, f"{bar:.0%}", f"{bad:,} of {asked:,}", asked > 0 and bad <= bar * asked)
