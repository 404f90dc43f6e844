"""The exchange's duty after an auction: win, billing and loss notices, clicks, and the advertiser's postbacks.

URLs come from the bid; macros are substituted as OpenRTB 2.6 section 4.4 says. A notice that must arrive (win, billing,
click, conversion) is sent again until it is acknowledged; the ledger's tokens make that safe. What was acknowledged is
booked in `Books`, to the micro, to be compared with the ledger's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from dsp.market.http_client import HttpClient, http_message
from dsp.market.world import Deed, Sale

RETRY_S = 0.25
GIVE_UP_S = 20.0
MACRO_NAMES = ("ID", "BID_ID", "IMP_ID", "SEAT_ID", "AD_ID", "PRICE", "CURRENCY", "MBR", "LOSS", "MIN_TO_WIN")


def fill_macros(url: str, values: dict[str, str]) -> str:
    """``url`` with ``${AUCTION_<name>}`` replaced; macros without a value become empty, as the specification says."""
    for name in MACRO_NAMES:
        macro = "${AUCTION_" + name + "}"
        if macro in url:
            url = url.replace(macro, values.get(name, ""))
    return url


def cpm_text(micros: int) -> str:
    """CPM micros as a decimal price, exact."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06d}"


@dataclass
class Books:
    """What the market knows it was acknowledged: the other side of the ledger's books."""

    spend_micros: int = 0  # sum of charges, micros of each line item's account currency
    by_line_item: Counter[int] = field(default_factory=Counter)  # the same by line item
    spend_usd: float = 0.0  # for display
    usd_by_line_item: dict[int, float] = field(default_factory=dict)  # dollars, for display
    events: Counter[str] = field(default_factory=Counter)
    line_events: Counter[tuple[int, str]] = field(default_factory=Counter)

    def bill(self, sale: Sale) -> None:
        """The notice that charges for ``sale`` was acknowledged."""
        charge = sale.charge_micros
        self.spend_micros += charge
        self.by_line_item[sale.ad.line_item] += charge
        usd = charge * 1e-6 * sale.ad.usd
        self.spend_usd += usd
        self.usd_by_line_item[sale.ad.line_item] = self.usd_by_line_item.get(sale.ad.line_item, 0.0) + usd

    def by_advertiser(self, names: Mapping[int, str]) -> dict[str, tuple[float, Counter[str]]]:
        """(spend in USD, events) by advertiser; ``names`` maps line items to theirs."""
        out: dict[str, tuple[float, Counter[str]]] = {name: (0.0, Counter()) for name in names.values()}
        for (line_item, event), n in self.line_events.items():
            out[names.get(line_item, "?")][1][event] += n
        for line_item, usd in self.usd_by_line_item.items():
            spend, events = out[names.get(line_item, "?")]
            out[names.get(line_item, "?")] = spend + usd, events
        return out


@dataclass
class _Due:
    url: str
    kind: str
    sale: Sale
    until: float  # loop time at which it is given up


class Courier:
    """Sends notices when they are due; one per market. ``pending`` is how many are not yet acknowledged."""

    def __init__(self, client: HttpClient, books: Books, *, workers: int = 32) -> None:
        self._client = client
        self._books = books
        self._due: asyncio.Queue[_Due] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._run()) for _ in range(workers)]
        self.pending = 0
        self.failed = 0  # given up
        self.refused: Counter[int] = Counter()  # by HTTP status
        self.retries = 0

    def send(self, kind: str, url: str, sale: Sale, after_s: float = 0.0) -> None:
        """Queue one notice; ``kind`` is its name in `Books.events`."""
        loop = asyncio.get_running_loop()
        self.pending += 1
        due = _Due(url, kind, sale, loop.time() + after_s + GIVE_UP_S)
        if after_s > 0:
            loop.call_later(after_s, self._due.put_nowait, due)
        else:
            self._due.put_nowait(due)

    def report(self, sale: Sale, deeds: list[Deed], seat: str) -> None:
        """Everything that follows from one settled bid."""
        bid, price = sale.bid, sale.settlement.price_micros
        values = {
            "ID": sale.scene.body["id"],
            "BID_ID": bid["id"],
            "IMP_ID": bid["impid"],
            "SEAT_ID": seat,
            "AD_ID": bid.get("adid", ""),
            "CURRENCY": sale.scene.body["cur"][0],
            "LOSS": str(sale.loss),
            "MIN_TO_WIN": cpm_text(sale.settlement.min_to_win_micros),
            "PRICE": cpm_text(price if sale.settlement.won else sale.settlement.min_to_win_micros),
        }
        if not sale.settlement.won:
            if bid.get("lurl"):
                self.send("loss", fill_macros(bid["lurl"], values), sale)
            return
        if bid.get("nurl"):
            self.send("win", fill_macros(bid["nurl"], values), sale)
        if bid.get("burl"):
            self.send("billing", fill_macros(bid["burl"], values), sale, 0.05)
            after = 0.1
            for deed in deeds:
                after += deed.after_s
                self.send(deed.step, deed_url(bid["burl"], deed), sale, after)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until every queued notice, delayed ones included, is acknowledged; False if time runs out."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.pending and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        return not self.pending

    async def close(self) -> None:
        """Stop sending."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._deliver(await self._due.get())

    async def _deliver(self, due: _Due) -> None:
        loop = asyncio.get_running_loop()
        host_at = due.url.index("://") + 3
        path_at = due.url.index("/", host_at)
        try:
            message = http_message("GET", due.url[path_at:], due.url[host_at:path_at])
            status = (await self._client.ask(message)).status
        except OSError:
            status = 0
        if 200 <= status < 400:
            self.pending -= 1
            self._acknowledged(due)
        elif (status == 0 or status >= 429) and loop.time() < due.until:
            self.retries += 1
            loop.call_later(RETRY_S, self._due.put_nowait, due)
        else:
            self.pending -= 1
            self.failed += 1
            self.refused[status] += 1

    def _acknowledged(self, due: _Due) -> None:
        self._books.events[due.kind] += 1
        self._books.line_events[due.sale.ad.line_item, due.kind] += 1
        if due.kind == ("win" if due.sale.venue.billed_on_win else "billing"):
            self._books.bill(due.sale)


def deed_url(burl: str, deed: Deed) -> str:
    """Where a deed is reported: the click or postback endpoint beside the billing one, with the same token."""
    base, _, rest = burl.partition("/b/")
    token = rest.partition("?")[0]
    if deed.step == "click":
        return f"{base}/c/{token}"
    return f"{base}/p/{token}?e={deed.step}" + (f"&v={deed.value}" if deed.value else "")
