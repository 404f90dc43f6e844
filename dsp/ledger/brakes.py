"""Brakes that no model can talk its way around: what stops a line item by itself.

Watched are bids above the line item's maximum, spend within a minute, and jumps of win rate and of the average price
against what the line item has been used to. Time is the notices' own, so that a spool that drains is not a jump.

Pacing raises bids by itself, after an outage twice and more, and then more is won at higher prices: what a multiplier
explains is no jump. Prices rise with the multiplier, win rates with its third power where few auctions are won.
"""

from __future__ import annotations

from dsp.base.config import LedgerConfig
from dsp.ledger.accounts import Line
from dsp.ledger.ticket import Notice

TEN_S_MS = 10_000
WINDOW_MS = 60_000
MEMORY = 0.1  # of a finished window in the baseline
LEAST_WINDOWS = 5  # a baseline of fewer says nothing
LEAST_SAMPLES = 200  # of a window, before it says anything
_RATE_POWER = 3


class _Watch:
    """One line item's last minute and what it is used to."""

    __slots__ = ("exchanges", "multiplier", "n", "price", "prices", "rate", "rates", "spend", "sum", "used", "window")

    def __init__(self) -> None:
        self.window = 0
        self.spend: dict[int, int] = {}  # ten-second number -> micros
        self.exchanges: dict[int, list[int]] = {}  # exchange -> wins, losses of the window
        self.n = self.sum = 0  # charges of the window
        self.rate = self.price = 0.0  # baselines
        self.rates = self.prices = 0  # windows in them
        self.used = self.multiplier = 1.0  # pacing multiplier: of the baseline, and the highest of the window

    def roll(self, time_ms: int, multiplier: float) -> None:
        """Begin a new window when it is time; ``multiplier`` is what it bids with now."""
        window = time_ms // WINDOW_MS
        if window <= self.window:
            self.multiplier = max(self.multiplier, multiplier)
            return
        wins, total = self.outcomes()
        if max(total, self.n) >= LEAST_SAMPLES:
            self.used = _blend(self.used, self.multiplier, max(self.rates, self.prices))
        self.multiplier = multiplier
        if total >= LEAST_SAMPLES:
            self.rate = _blend(self.rate, wins / total, self.rates)
            self.rates += 1
        if self.n >= LEAST_SAMPLES:
            self.price = _blend(self.price, self.sum / self.n, self.prices)
            self.prices += 1
        self.window = window
        self.exchanges.clear()
        self.n = self.sum = 0

    def outcomes(self) -> tuple[int, int]:
        """Wins, and wins and losses, on exchanges that report losses."""
        told = [counts for counts in self.exchanges.values() if counts[1]]
        wins = sum(counts[0] for counts in told)
        return wins, wins + sum(counts[1] for counts in told)


class Brakes:
    """Watches every notice; says which line item must stop, and why."""

    def __init__(self, config: LedgerConfig) -> None:
        self._rate_jump, self._price_jump = config.win_rate_jump, config.price_jump
        self._watched: dict[int, _Watch] = {}

    def reset(self, line_item: int) -> None:
        """Somebody looked and let it go on: what it does now is what it is used to."""
        self._watched.pop(line_item, None)

    def lost(self, line: Line, notice: Notice) -> None:
        """A bid that lost."""
        self._watch(line, notice.time_ms).exchanges.setdefault(notice.ticket.exchange, [0, 0])[1] += 1

    def charged(self, line: Line, notice: Notice, micros: int) -> tuple[str, str] | None:
        """A bid that cost ``micros``: (reason, what was seen) when the line item must stop."""
        watch = self._watch(line, notice.time_ms)
        watch.exchanges.setdefault(notice.ticket.exchange, [0, 0])[0] += 1
        watch.n += 1
        watch.sum += micros
        return self._bid(line, notice) or self._minute(line, watch, notice.time_ms, micros) or self._jump(watch)

    def _watch(self, line: Line, time_ms: int) -> _Watch:
        watch = self._watched.get(line.id)
        if watch is None:
            watch = self._watched[line.id] = _Watch()
        watch.roll(time_ms, line.multiplier)
        return watch

    def _bid(self, line: Line, notice: Notice) -> tuple[str, str] | None:
        ticket = notice.ticket
        most = line.plan.max_bid_cpm_micros if line.plan is not None else 0
        bid = ticket.bid_cpm_micros * ticket.fx
        if not most or bid <= most * 1.0001 + 1000 or line.plan is None or ticket.time_s * 1000 < line.plan.start_ms:
            return None
        return "max_bid", f"bid {bid / 1e6:.4f} CPM, the most is {most / 1e6:.4f}"

    def _minute(self, line: Line, watch: _Watch, time_ms: int, micros: int) -> tuple[str, str] | None:
        limit = line.plan.minute_micros if line.plan is not None else 0
        if not limit:
            return None
        now = time_ms // TEN_S_MS
        watch.spend[now] = watch.spend.get(now, 0) + micros
        if len(watch.spend) > 8:
            watch.spend = {at: spent for at, spent in watch.spend.items() if at > now - 8}
        spent = sum(spent for at, spent in watch.spend.items() if now - 6 < at <= now)
        return ("spend_per_minute", f"{spent} micros in a minute, the most is {limit}") if spent > limit else None

    def _jump(self, watch: _Watch) -> tuple[str, str] | None:
        if watch.n < LEAST_SAMPLES:
            return None
        raised = max(1.0, watch.multiplier / watch.used)
        price_jump, rate_jump = self._price_jump * raised, self._rate_jump * raised**_RATE_POWER
        if self._price_jump and watch.prices >= LEAST_WINDOWS and watch.sum > price_jump * watch.price * watch.n:
            return "price_jump", f"{watch.sum / watch.n:.0f} micros an impression, used to {watch.price:.0f}"
        wins, total = watch.outcomes()
        if self._rate_jump and watch.rates >= LEAST_WINDOWS and total >= LEAST_SAMPLES:
            if wins > rate_jump * watch.rate * total:
                return "win_rate_jump", f"win rate {wins / total:.3f}, used to {watch.rate:.3f}"
        return None


def _blend(baseline: float, value: float, n: int) -> float:
    weight = max(MEMORY, 1 / (n + 1))
    return baseline + weight * (value - baseline)
