"""The iPinYou replay streams, one per campaign, and the constants of their protocol.

H. Cai et al., *Real-Time Bidding by Reinforcement Learning in Display Advertising* (WSDM 2017), published code: second
price, win where the bid reaches the market price, integer bids up to 300, a budget for every 1,000 auctions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

EPISODE = 1_000  # auctions a budget is for
HIGHEST_BID = 300
BUDGETS = (2, 4, 8, 16, 32)  # 1/c0: what part of the money the training period spent per auction


@dataclass(frozen=True)
class Stream:
    """A campaign's auctions in time order (``click`` 0/1, ``price`` to win, ``pctr``, [n] each), and what a bidder may
    know beforehand: the training period's price histogram int64[301], impressions, clicks and cost.
    """

    name: str
    click: I64
    price: I64
    pctr: F64
    train_prices: I64
    train_imps: int
    train_clicks: int
    train_cost: int

    @property
    def click_worth(self) -> float:
        """What a click cost in the training period, in units of the prices."""
        return self.train_cost / self.train_clicks

    def budget(self, c: int) -> int:
        """Units for every EPISODE auctions at c0 = 1/c."""
        return int(self.train_cost / self.train_imps / c * EPISODE)


def load_streams(directory: Path) -> list[Stream]:
    """All ``*.npz`` of a directory, by name. Raises FileNotFoundError where there is none."""
    files = sorted(directory.glob("*.npz"))
    if not files:
        raise FileNotFoundError(2, "no stream", str(directory))
    return [_load(path) for path in files]


def _load(path: Path) -> Stream:
    with np.load(path) as z:
        return Stream(
            path.stem,
            z["click"].astype(np.int64),
            z["market_price"].astype(np.int64),
            z["pctr"].astype(np.float64),
            z["train_price_histogram"].astype(np.int64),
            int(z["train_imps"]),
            int(z["train_clicks"]),
            int(z["train_cost"]),
        )
