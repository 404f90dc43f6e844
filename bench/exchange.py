"""An exchange that never dies: it hears of bids over a pipe, decides who wins, and sends notices until acknowledged."""

from __future__ import annotations

import heapq
import http.client
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from dsp.base.money import impression_micros
from dsp.base.token import Signer
from dsp.ledger.ticket import open_ticket

RETRY_S = 0.05


@dataclass
class Sale:
    """A bid that won: what must be in the books once its billing notice is acknowledged."""

    bid_id: int
    line_item: int
    charge_micros: int
    posted_micros: int


@dataclass
class Exchange:
    """``acknowledged`` maps bid ids to sales, ``clicks`` are bid ids."""

    signer: Signer
    port: int
    rng: random.Random
    win_rate: float = 0.4
    late_after_s: float = 4.0
    late: float = 0.01  # share of notices sent after their reservation has expired
    senders: tuple[int, ...] = (1, 1, 100)  # one thread each: how many notices it sends at a time
    acknowledged: dict[int, Sale] = field(default_factory=dict)
    clicks: set[int] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._due: list[tuple[float, float, str, Sale | None]] = []
        self._changed = threading.Condition()
        self._busy = 0
        self._stop = False
        self.bids = 0
        self._threads = [threading.Thread(target=self._send, args=(most,), daemon=True) for most in self.senders]
        for thread in self._threads:
            thread.start()

    def bid(self, token: str) -> None:
        """A bid has arrived: some win, most of the rest are told that they lost."""
        rng, ticket = self.rng, open_ticket(self.signer, token)
        self.bids += 1
        if rng.random() >= self.win_rate:
            if rng.random() < 0.7:
                self._put(f"/l/{token}?r=102", None)
            return
        share = rng.uniform(0.5, 1.0) if rng.random() < 0.98 else rng.uniform(1.0, 1.3)  # a few charge too much
        cpm = int(ticket.bid_cpm_micros * share)
        charge = int(impression_micros(cpm))
        sale = Sale(ticket.bid_id, ticket.line_item, charge, min(charge, ticket.reserve_micros))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            self._put(f"/b/{token}?p={cpm / 1e6:.6f}&c=USD", sale)
        if rng.random() < 0.3:
            self._put(f"/c/{token}", sale)

    def _put(self, path: str, sale: Sale | None) -> None:
        after = self.late_after_s if self.rng.random() < self.late else self.rng.uniform(0, 0.4)
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + after, self.rng.random(), path, sale))
            self._changed.notify()

    def _send(self, most: int) -> None:
        """Deliver what is due, ``most`` in one body; 1: as a GET of its own."""
        connection: http.client.HTTPConnection | None = None
        while True:
            with self._changed:
                while not self._stop and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(0.02)
                if self._stop:
                    if connection is not None:
                        connection.close()
                    return
                due: list[tuple[float, float, str, Sale | None]] = []
                while self._due and self._due[0][0] <= time.monotonic() and len(due) < most:
                    due.append(heapq.heappop(self._due))
                self._busy += 1
            status = 0
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
                if most == 1:
                    connection.request("GET", due[0][2])
                else:
                    connection.request("POST", "/notices", "\n".join(path for _, _, path, _ in due))
                response = connection.getresponse()
                answer = response.read()
                status = response.status
                if most > 1 and status == 200 and b'"refused":0' not in answer:
                    raise AssertionError(f"a good notice was refused: {answer!r}")
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
            with self._changed:
                self._busy -= 1
                self.statuses[status] += len(due)
                for _, order, path, sale in due:
                    if 200 <= status < 400:
                        self._heard(path, sale)
                    else:
                        heapq.heappush(self._due, (time.monotonic() + RETRY_S, order, path, sale))

    def _heard(self, path: str, sale: Sale | None) -> None:
        if sale is not None and path.startswith("/b/"):
            self.acknowledged[sale.bid_id] = sale
        elif sale is not None:
            self.clicks.add(sale.bid_id)

    def settle(self, timeout_s: float) -> bool:
        """Wait until every notice is acknowledged."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with self._changed:
                if not self._due and not self._busy:
                    return True
            time.sleep(0.02)
        return False

    def close(self) -> None:
        """Stop the senders."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
