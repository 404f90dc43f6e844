"""What a ledger knows, in one place: the parts of the books work on it, and none of them on one another.

All of it is memory; what a transaction changes of it is written when the transaction ends (`dsp.ledger.books`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dsp.ledger.balances import Balances
from dsp.ledger.brakes import Brakes
from dsp.ledger.grants import Granting
from dsp.ledger.journal import Journal
from dsp.ledger.pacer import Pacer
from dsp.ledger.rollups import Rollups
from dsp.ledger.tallies import Tallies


@dataclass
class State:
    """``counts`` counts what users of notices should know; ``rates`` (code, ISO date) -> USD."""

    journal: Journal
    granting: Granting
    brakes: Brakes
    pacer: Pacer
    rollups: Rollups = field(default_factory=Rollups)
    balances: Balances = field(default_factory=Balances)
    tallies: Tallies = field(default_factory=Tallies)
    counts: Counter[str] = field(default_factory=Counter)
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
