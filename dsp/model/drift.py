"""Following the funnel between two trainings: an offset on a head's log odds, moved by every outcome.

A trained model is right about yesterday. When rates move (a season, a new landing page, a lender that tightens) its
ranking mostly stays and its level is wrong, so what is followed is the level: per head one offset for everything and
one per key (a line item, an exchange) beside it,

    p' = sigmoid(logit(p) + whole + own[key])

each a random walk observed through Bernoulli outcomes, filtered by the extended Kalman filter. The walk's step is set
by what an outcome can tell, so that memory is counted in outcomes whatever their rate: at rest an offset remembers
about ``memory`` expected positives, its standard error is 1 / sqrt(memory), and with nothing coming in nothing moves.

Invariant: outcomes enter in the order in which they became known; a label that is not ripe is not an outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import inlined, kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MEMORY = 100.0  # positives that the offset of everything remembers
OWN_MEMORY = 400.0  # and that of one key: it moves slowly, a whole change is no key's own
_START, _OWN_START = 0.5, 0.05  # variances before any outcome
_LIMIT = 3.0  # log odds either way: a factor of twenty; beyond that the model is broken, not adrift


@inlined
def corrected(p: float, offset: float) -> float:
    """The probability with its log odds moved by ``offset``; 0 and 1 stay."""
    odds = p * math.exp(offset)
    return odds / (1.0 - p + odds)


@kernel
def follow(p: F64, y: F64, key: I64, whole: F64, own: F64, memory: float, own_memory: float, out: F64) -> None:
    """Filter outcomes in the order they became known; ``out`` float64[n] gets each one's corrected probability as it
    was before its own outcome.

    ``p`` float64[n] as the model said, ``y`` 0/1, ``key`` int64[n] in [0, K). ``whole`` float64[2] and ``own``
    float64[K, 2] are (offset, variance), changed in place.
    """
    for i in range(len(p)):
        k = key[i]
        now = corrected(p[i], whole[0] + own[k, 0])
        out[i] = now
        tells = now * (1.0 - now)  # Fisher information of an outcome about its log odds
        if not tells > 0.0:
            continue
        whole[1] = min(whole[1] + tells / memory**2, _START)
        own[k, 1] = min(own[k, 1] + tells / own_memory**2, _OWN_START)
        surprise = (y[i] - now) / (1.0 + tells * (whole[1] + own[k, 1]))
        for state in (whole, own[k]):
            variance = state[1]
            state[0] = min(max(state[0] + variance * surprise, -_LIMIT), _LIMIT)
            state[1] = variance / (1.0 + tells * variance)


@dataclass
class Drift:
    """The offsets of one head over ``keys`` keys."""

    keys: int
    memory: float = MEMORY
    own_memory: float = OWN_MEMORY
    whole: F64 = field(init=False)
    own: F64 = field(init=False)

    def __post_init__(self) -> None:
        self.whole = np.array([0.0, _START])
        self.own = np.tile(np.array([0.0, _OWN_START]), (self.keys, 1))

    def follow(self, p: F64, y: F64, key: I64) -> F64:
        """Take in outcomes (`follow`); what would have been predicted just before each, float64[n]."""
        out = np.empty(len(p))
        follow(p, y, key, self.whole, self.own, self.memory, self.own_memory, out)
        return out

    def offsets(self) -> F64:
        """float64[keys]: what is added to the log odds now."""
        return np.asarray(self.whole[0] + self.own[:, 0])
