"""What the ledger tells the audience: who was shown what, whose bid was lost, who has converted.

After a batch is durable, its new notices about people who may be counted are passed on: a billable one counts as an
impression and lets the bid's reservation linger, a loss frees it, a conversion raises the person's life cycle, so that
an applicant stops seeing the apply ad with the next request. Frequency is no money: what can't be written is counted
here and lost, never a reason to refuse a notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dsp.audience.aerospike_store import AerospikeWriter
from dsp.audience.frequency import Shown
from dsp.audience.inflight import FILE_NAME, InFlight
from dsp.audience.lmdb_frequency import LmdbFrequencyWriter, frequency_path
from dsp.audience.profile import LIFECYCLE
from dsp.audience.store import StoreError
from dsp.base.config import Config
from dsp.base.token import TOKEN_CONSENT
from dsp.catalog.layout import EX_BILLABLE, EX_EXP_S, EX_ID, PRODUCTS
from dsp.catalog.snapshot import Snapshot
from dsp.ledger.plan import BILLED_BY
from dsp.ledger.ticket import Notice
from dsp.log.outcomes import APPLIED, APPROVED, BILLING, DEFAULTED, FUNDED, LOSS, REGISTERED

STAGES = {
    REGISTERED: LIFECYCLE.index("registered"),
    APPLIED: LIFECYCLE.index("applied"),
    APPROVED: LIFECYCLE.index("approved"),
    FUNDED: LIFECYCLE.index("funded"),
    DEFAULTED: LIFECYCLE.index("delinquent"),
}
Ids = tuple[int, int, int, int, int]  # creative, line item, campaign, advertiser, product: as `caps.KINDS`


class StateWriter(Protocol):
    """Where states are written."""

    def count(self, shown: list[tuple[bytes, Shown]]) -> None:
        """Add billed impressions. Raises `StoreError`."""
        ...

    def convert(self, reached: list[tuple[bytes, int, int]]) -> None:
        """Add conversions. Raises `StoreError`."""
        ...

    def close(self) -> None:
        """Let go; idempotent."""
        ...


class AudienceNews:
    """One per ledger; `attach` for every snapshot, `tell` from the writer's thread."""

    def __init__(self, config: Config) -> None:
        self.counted = self.converted = self.failed = 0
        self._config = config
        self._writer: StateWriter | None = None
        self._inflight: InFlight | None = None
        self._lines: dict[int, tuple[int, int, int]] = {}  # line item -> campaign, advertiser, product
        self._exchanges: dict[int, tuple[int, int]] = {}  # exchange id -> how long a bid lives, billable kind
        self._write([], [])  # now, so that in a process that bids as well the file is open for both

    def attach(self, snapshot: Snapshot) -> None:
        """Learn whose a line item is and what an exchange's bids live on."""
        items = snapshot.meta["line_items"]
        products = items.columns.get("product") or [PRODUCTS[0]] * len(items)
        columns = zip(items["id"], items["campaign_id"], items["advertiser_id"], products, strict=True)
        self._lines = {number: (c, a, PRODUCTS.index(p)) for number, c, a, p in columns}
        self._exchanges = {
            int(row[EX_ID]): (int(row[EX_EXP_S]), BILLED_BY[int(row[EX_BILLABLE])]) for row in snapshot.ex_i
        }

    def tell(self, notices: Sequence[Notice]) -> None:
        """Pass on what new, durable notices say about people who may be counted. Never raises."""
        shown: list[tuple[bytes, Shown]] = []
        billed: list[tuple[bytes, Ids, int, int]] = []
        reached: list[tuple[bytes, int, int]] = []
        for notice in notices:
            ticket = notice.ticket
            line = self._lines.get(ticket.line_item)
            if not ticket.flags & TOKEN_CONSENT or line is None:
                continue
            subject = bytes(ticket.person)
            exp_s, billable = self._exchanges.get(ticket.exchange, (0, BILLING))
            ids: Ids = (ticket.creative, ticket.line_item, *line)
            if notice.kind == billable:
                now_s = notice.time_ms // 1000
                shown.append((subject, Shown(now_s, *ids)))
                billed.append((subject, ids, ticket.time_s + exp_s, now_s))
            elif notice.kind == LOSS:
                self._table().lost(subject, ids, ticket.time_s + exp_s)
            elif notice.kind in STAGES:
                reached.append((subject, line[2], STAGES[notice.kind]))
        if shown or reached:
            self._write(shown, reached)
        for one, ids, until_s, now_s in billed:  # only now: until here the reservation stood for it
            self._table().billed(one, ids, until_s, now_s)

    def close(self) -> None:
        """Let go of the files; idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._inflight is not None:
            self._inflight.close()
            self._inflight = None

    def _write(self, shown: list[tuple[bytes, Shown]], reached: list[tuple[bytes, int, int]]) -> None:
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.count(shown)
            self.counted += len(shown)
            self._writer.convert(reached)
            self.converted += len(reached)
        except (StoreError, OSError):
            self.failed += len(shown) + len(reached)

    def _open(self) -> StateWriter:
        settings = self._config.audience
        if settings.store == "aerospike":
            return AerospikeWriter(settings.aerospike_hosts, settings.namespace)
        return LmdbFrequencyWriter(frequency_path(self._config.root))

    def _table(self) -> InFlight:
        if self._inflight is None:
            self._inflight = InFlight(self._config.path(FILE_NAME))
        return self._inflight
