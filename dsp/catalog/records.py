"""The catalog as the program holds it: names resolved to ids, money to micros, times to unix seconds.

Ids are the SQL keys: they never change and are never reused, because notices and books carry them for years.
"""

from __future__ import annotations

import msgspec

from dsp.catalog.layout import NO_LIMIT_MICROS
from dsp.catalog.profile import Profile
from dsp.catalog.types import Cap, Experiment, Targeting
from dsp.catalog.types import Creative as CreativeSpec

FOREVER_S = 1 << 40  # later than any flight's end


class Record(msgspec.Struct, gc=False):
    """Base of the records: plain rows without cycles, so 100,000 of them cost the collector nothing."""


class Currency(Record):
    """A currency and its rate."""

    code: str
    usd: float  # US dollars for one unit
    date: str = ""  # of the rate


class Exchange(Record):
    """`types.Exchange`."""

    id: int
    name: str
    token: str
    qps: int
    allowance_ms: int
    tmax_ms: int
    currency: str
    exp_s: int
    auction: str
    billable: str
    seat: str
    profile: Profile = Profile()
    seats: dict[str, str] = {}
    match_url: str = ""
    client_header: str = ""
    ips: tuple[str, ...] = ()


class Segment(Record):
    """An audience segment: number 1..1023; ``demographic`` where it stands for age, gender and the like, else empty."""

    number: int
    name: str
    demographic: str = ""


class Deal(Record):
    """`types.Deal`; the exchange by id, the floor in CPM micros of its currency."""

    id: str
    exchange_id: int
    floor_micros: int
    currency: str
    at: int


class Offer(Record):
    """`types.Offer`; amounts in whole units of the advertiser's currency."""

    id: int
    name: str
    product: str
    lender: str
    currency: str
    margin: float
    lgd: float
    ead: float
    payout_click: float
    payout_apply: float
    payout_approve: float
    payout_fund: float
    facts: dict[str, str] = {}


class Advertiser(Record):
    """`types.Advertiser`."""

    id: int
    name: str
    seat: str
    domains: tuple[str, ...]
    categories: tuple[str, ...]
    currency: str
    timezone: str
    bundle: str = ""
    language: str = "en"
    total_micros: int = NO_LIMIT_MICROS
    daily_micros: int = NO_LIMIT_MICROS
    hourly_micros: int = NO_LIMIT_MICROS
    margin_ppm: int = 0
    prepaid: bool = False
    frequency: tuple[Cap, ...] = ()
    product_frequency: dict[str, tuple[Cap, ...]] = {}


class Campaign(Record):
    """`types.Campaign`; the flight in unix seconds, end exclusive."""

    id: int
    advertiser_id: int
    name: str
    total_micros: int = NO_LIMIT_MICROS
    daily_micros: int = NO_LIMIT_MICROS
    start_s: int = 0
    end_s: int = FOREVER_S
    status: str = "active"
    hourly_micros: int = NO_LIMIT_MICROS
    frequency: tuple[Cap, ...] = ()
    experiments: tuple[Experiment, ...] = ()


class LineItem(Record):
    """`types.LineItem`; ``max_bid_micros`` is CPM micros, time zone and language are filled in."""

    id: int
    campaign_id: int
    offer_id: int
    name: str
    max_bid_micros: int
    timezone: str
    language: str
    total_micros: int = NO_LIMIT_MICROS
    daily_micros: int = NO_LIMIT_MICROS
    start_s: int = 0
    end_s: int = FOREVER_S
    pacing: str = "even"
    targeting: Targeting = Targeting()
    strategy: str = "value"
    deals: tuple[str, ...] = ()
    deal_only: bool = False
    allow_uncapped: bool = False
    credit: bool = False
    status: str = "active"
    hourly_micros: int = NO_LIMIT_MICROS
    minute_micros: int = 0  # brake; 0 none
    tolerance_ppm: int = 0
    frequency: tuple[Cap, ...] = ()
    target_micros: int = 0  # cost per action to hold, of ``target_stage``; 0 none
    target_stage: str = ""
    click_window_s: int = 30 * 86_400
    view_window_s: int = 86_400
    suppress: tuple[str, ...] = ()


class Creative(Record):
    """One ad in one size; ``w`` = ``h`` = 0 for native ads and flexible banners."""

    id: int
    line_item_id: int
    name: str
    format: str
    w: int
    h: int
    spec: CreativeSpec


class Catalog(msgspec.Struct):
    """Everything that is compiled, each list in the order of its ids."""

    revision: int
    currencies: list[Currency]
    exchanges: list[Exchange]
    segments: list[Segment]
    deals: list[Deal]
    offers: list[Offer]
    advertisers: list[Advertiser]
    campaigns: list[Campaign]
    line_items: list[LineItem]
    creatives: list[Creative]
