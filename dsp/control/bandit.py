"""Which of several creatives to show: each as often as it is likely to be the best, and never less than a floor.

Thompson sampling (W. Thompson 1933; O. Chapelle and L. Li 2011) in shares instead of draws, because the draw is the
bidder's and the learning is done elsewhere: a creative's share is the probability that its rate is the highest. Rates
are compared as multiples of what the model expected of the same impressions, so that a creative that only fits good
slots is not taken for a good creative: events ~ Poisson(theta * expected), theta ~ Gamma(PRIOR, PRIOR). With several
stages (clicks, then applications of those who clicked) what counts is the product of their thetas: an ad that is
clicked by those who never apply is no good ad.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FLOOR = 0.1  # of the traffic is spread evenly, whatever is known: what is never shown can never be learned
PRIOR = 5.0  # clicks that "as good as the model expects" is worth
_DRAWS = 2_000


def shares(group: I64, events: F64, expected: F64, seed: int, floor: float = FLOOR) -> F64:
    """Shares float64[n] that sum to 1 within each ``group`` (the creatives that compete for a slot).

    ``events`` are what came of each creative's impressions, ``expected`` what the model expected of them (the sum of
    its probabilities), float64[n] or, by stage, float64[n, stages]; nothing shown yet is (0, 0). Deterministic by
    ``seed``.
    """
    rng = np.random.default_rng(seed)
    came, hoped = events.reshape(len(group), -1), expected.reshape(len(group), -1)
    draws = np.ones((_DRAWS, len(group)))
    for k in range(came.shape[1]):
        draws *= rng.gamma(PRIOR + came[:, k], 1.0 / (PRIOR + hoped[:, k]), draws.shape)
    out = np.zeros(len(group))
    for g in np.unique(group):
        arms = np.flatnonzero(group == g)
        best = np.bincount(np.argmax(draws[:, arms], axis=1), minlength=len(arms)) / _DRAWS
        out[arms] = floor / len(arms) + (1.0 - floor) * best
    return out
