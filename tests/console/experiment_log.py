"""What bidders and ledger would have logged of an experiment with three arms."""

from __future__ import annotations

import numpy as np

from dsp.base.config import Config
from dsp.log.decisions import DECISION_FIELDS, DecisionWriter
from dsp.log.outcomes import APPLIED, BILLING, CLICK, FUNDED, OutcomeWriter

ARMS = [{"name": "held out", "share": 0.2, "control": True}, {"name": "a", "share": 0.4}, {"name": "b", "share": 0.4}]
PEOPLE = 400


def log(config: Config, experiment: int) -> None:
    """Somebody in each arm in turn, bid for twice on line item 1; those shown apply and are funded now and then."""
    n = 2 * PEOPLE
    person = np.arange(n) % PEOPLE
    rows = {name: np.zeros((n, w) if w else n, t) for name, (t, w) in DECISION_FIELDS.items()}
    rows["bid_id"][:], rows["time_ms"][:], rows["line_item"][:] = np.arange(1, n + 1), 1_769_000_000_000, 1
    rows["reserve_micros"][:], rows["bid_cpm_micros"][:] = 3_000, 3_000_000
    rows["experiment"][:], rows["arm"][:], rows["unit"][:] = experiment, 1 + person % 3, 1 + person
    rows["ghost"][:] = person % 3 == 0
    writer = DecisionWriter(config.path("log", "decisions"), "t", "a spec", "1")
    writer.append(rows, np.zeros((n, 3), np.float32))
    rows["experiment"][:] = 5  # somebody else's
    writer.append(rows, np.zeros((n, 3), np.float32))
    writer.close()
    happened = [(b + 1, BILLING) for b in range(n) if person[b] % 3]
    happened += [(b + 1, kind) for b in range(0, n, 7) if person[b] % 3 for kind in (CLICK, APPLIED)]
    happened += [(b + 1, FUNDED) for b in range(0, n, 14) if person[b] % 3]
    outcomes = OutcomeWriter(config.path("log", "outcomes"), "t")
    outcomes.append([(bid, kind, 1_769_000_001_000, 0, 0.0) for bid, kind in happened])
    outcomes.close()
