"""How far the best line item of a request came, and the no-bid reason that says so (`dsp.openrtb.codes`).

In order: a later check was reached by more. Q_REASON of a request holds the highest.
"""

from __future__ import annotations

import numpy as np

from dsp.openrtb.codes import (
    NBR_BELOW_FLOOR,
    NBR_BLOCKED,
    NBR_CONSENT,
    NBR_FORMAT,
    NBR_HELD_OUT,
    NBR_NO_BUDGET,
    NBR_NO_CURRENCY,
    NBR_NO_DEAL,
    NBR_NO_ELIGIBLE,
    NBR_NOT_INTERESTED,
)

(
    P_NONE,  # no line item wants it
    P_CONSENT,  # only such as target what may not be known of this person
    P_BLOCKED,  # only such as the exchange's lists keep out
    P_FORMAT,
    P_BUDGET,
    P_DEAL,
    P_CURRENCY,
    P_FLOOR,
    P_VALUE,
    P_HELD_OUT,  # it would have bid, but its person is in a control arm
) = range(10)
REASONS = np.array(
    [
        NBR_NO_ELIGIBLE, NBR_CONSENT, NBR_BLOCKED, NBR_FORMAT, NBR_NO_BUDGET, NBR_NO_DEAL, NBR_NO_CURRENCY,
        NBR_BELOW_FLOOR, NBR_NOT_INTERESTED, NBR_HELD_OUT,
    ],
    np.int64,
)  # fmt: skip
