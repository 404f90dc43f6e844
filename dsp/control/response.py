"""How spend answers the multiplier, learned while spending: ``spend per second = e^level · curve(t) · m^elasticity``.

Level is today's traffic against the usual, the thing that spikes; elasticity is how auctions answer a higher bid (about
1 where all are won, 3 and more where rivals are dense). A Kalman filter per line item tracks both in logarithms: level
wanders, elasticity hardly does. Its prediction errors are what is minimised, so it stays right although the multiplier
itself follows the level (closed loop).

A surprise beyond four standard deviations is taken as news, not as noise: the level's uncertainty is opened by it, and
a spike is followed within one step. Nothing at all where much was expected is an outage (``dark``): nothing is learned
from it, so that the market is found again where it was left.

Source: Kalman filter with a random-walk state: Durbin & Koopman, Time Series Analysis by State Space Methods, ch. 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

ELASTICITY = 1.5  # before anything is known
ELASTICITY_MIN, ELASTICITY_MAX = 0.4, 6.0
_ELASTICITY_VAR = 0.4**2
_LEVEL_VAR = 9.0
_LEVEL_DRIFT = 0.15  # variance of log traffic about its curve that an hour adds
_ELASTICITY_DRIFT = 0.002
_PRICE_VAR = 1.0  # squared coefficient of variation of prices paid: a spend of n wins is known to (1 + this) / n
_ENOUGH = 12.0  # wins that make an observation
_WAIT_S = 600.0  # ... or this long
_DARK = 15.0  # wins that were expected in vain
_NEWS = 4.0


@dataclass
class Response:
    """What is known of L line items; arrays [L] but ``p`` [L, 3]: variance of level, covariance, of elasticity."""

    level: F64  # log micros per second at m = 1 where the curve is 1
    elasticity: F64
    p: F64
    price: F64  # mean micros of a win
    spend: F64  # gathered since the last observation
    wins: F64
    predicted: F64  # what the model had predicted for the same time with level 0, and its mean log multiplier
    log_m: F64
    seconds: F64
    dark: Bool
    known: Bool  # something was observed at all

    @classmethod
    def prior(cls, n: int) -> Response:
        """Nothing observed."""

        def zeros() -> F64:
            return np.zeros(n)

        return cls(
            level=zeros(),
            elasticity=np.full(n, ELASTICITY),
            p=np.tile([_LEVEL_VAR, 0.0, _ELASTICITY_VAR], (n, 1)),
            price=zeros(),
            spend=zeros(),
            wins=zeros(),
            predicted=zeros(),
            log_m=zeros(),
            seconds=zeros(),
            dark=np.zeros(n, bool),
            known=np.zeros(n, bool),
        )

    def rate(self, curve: F64, log_m: F64) -> F64:
        """Expected spend, micros per second, at a multiplier; 0 where nothing is known or all is dark."""
        rate = np.exp(np.clip(self.level + self.elasticity * log_m, -50.0, 50.0)) * curve
        return np.where(self.known & ~self.dark, rate, 0.0)


def observe(r: Response, spend: F64, wins: F64, curve: F64, log_m: F64, seconds: float, able: Bool) -> Bool:
    """Take what was spent in the last ``seconds``: micros and wins [L], under ``curve`` [L] and the log multiplier.

    ``log_m`` [L] is of when these bids were made. ``able`` [L]: the line item could spend (it had money and was in
    flight). Where it could not, nothing is learned. Returns where the estimates moved. Rows change in place.
    """
    r.spend += np.where(able, spend, 0.0)
    r.wins += np.where(able, wins, 0.0)
    weight = np.where(able, curve * seconds, 0.0)
    total = r.predicted + weight
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    r.log_m += share * (log_m - r.log_m)
    r.predicted = total
    r.seconds += np.where(able, seconds, 0.0)
    r.p[:, 0] += np.where(able, _LEVEL_DRIFT * seconds / 3600.0, 0.0)
    r.p[:, 2] += np.where(able, _ELASTICITY_DRIFT * seconds / 3600.0, 0.0)
    r.p[:, 0] = np.minimum(r.p[:, 0], _LEVEL_VAR)
    r.p[:, 2] = np.minimum(r.p[:, 2], _ELASTICITY_VAR)
    _darkness(r)
    late = (r.seconds >= _WAIT_S) & ((r.wins > 0) | r.known)
    ready = (r.predicted > 0) & ~r.dark & ((r.wins >= _ENOUGH) | late)
    if ready.any():
        _update(r, ready)
    done = ready | r.dark
    for gathered in (r.spend, r.wins, r.predicted, r.log_m, r.seconds):
        gathered[done] = 0.0
    return ready


def _darkness(r: Response) -> None:
    """Outages begin when many wins were due and none came, and end with the first win."""
    due = np.exp(np.clip(r.level + r.elasticity * r.log_m, -50, 50)) * r.predicted
    vain = r.known & (r.wins == 0) & (due > _DARK * np.maximum(r.price, 1.0))
    back = r.dark & (r.wins > 0)
    r.p[back, 0] = np.minimum(r.p[back, 0] + 0.25, _LEVEL_VAR)
    r.dark = (r.dark | vain) & ~back


def _update(r: Response, ready: Bool) -> None:
    i = np.flatnonzero(ready)
    x = r.log_m[i]
    expected = np.exp(np.clip(r.level[i] + r.elasticity[i] * x, -50, 50)) * r.predicted[i]
    some = np.where(r.known[i] & (r.wins[i] < _ENOUGH), 0.5, 0.0)  # few wins, or none, still say that it was not much
    n = r.wins[i] + some
    mean = r.spend[i] / np.maximum(r.wins[i], 1.0)
    first = r.price[i] <= 0
    r.price[i] = np.where(first, mean, r.price[i] + np.minimum(r.wins[i] / 200.0, 0.5) * (mean - r.price[i]))
    pad = some * r.price[i]
    y = np.log(np.maximum(r.spend[i] + pad, 1.0) / np.maximum(expected + pad, 1e-9))
    pl, pc, pe = r.p[i, 0], r.p[i, 1], r.p[i, 2]
    noise = (1.0 + _PRICE_VAR) / n
    s = pl + 2 * x * pc + x * x * pe + noise
    news = y * y > _NEWS**2 * s
    pl = np.where(news, np.minimum(pl + y * y, 2 * _LEVEL_VAR), pl)
    s = pl + 2 * x * pc + x * x * pe + noise
    kl, ke = (pl + x * pc) / s, (pc + x * pe) / s
    ke = np.where(news, 0.0, ke)  # a jump of traffic says nothing of elasticity
    r.level[i] += kl * y
    r.elasticity[i] = np.clip(r.elasticity[i] + ke * y, ELASTICITY_MIN, ELASTICITY_MAX)
    # Joseph form: stays positive whatever the gain.
    a, b = 1.0 - kl, -kl * x
    c, d = -ke, 1.0 - ke * x
    r.p[i, 0] = a * a * pl + 2 * a * b * pc + b * b * pe + kl * kl * noise
    r.p[i, 1] = a * c * pl + (a * d + b * c) * pc + b * d * pe + kl * ke * noise
    r.p[i, 2] = c * c * pl + 2 * c * d * pc + d * d * pe + ke * ke * noise
    r.known[i] = True
