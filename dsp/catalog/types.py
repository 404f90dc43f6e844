"""The catalog file as its author writes it: the types of the YAML.

Amounts are decimals in the advertiser's currency, times are local to its time zone, everything is referred to by name.
`dsp.catalog.check` says what is wrong with a file that has these types; `dsp.catalog.records` is what becomes of it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dsp.catalog.profile import Profile

Amount = int | float | str  # a decimal number; quotes are optional


# Who is past being acquired: has applied, or been decided on. The example of a retargeting line item clears the list.
ACQUIRED = ("applied", "rejected", "approved", "funded", "delinquent", "existing_customer")


class IncludeExclude(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Values that must hold, and values that must not."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class AllowBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A list of the only ones, and a list of the never ones."""

    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()


class Targeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where, when, on what and to whom a line item may show; what is left out is not restricted.

    ``sites.allow`` and ``apps.allow`` together are the only places: with one site allowed, no app is.
    """

    geo: IncludeExclude = IncludeExclude()  # "USA", "USA/CA", "USA/CA/Los Angeles"
    devices: tuple[str, ...] = ()  # names.DEVICES
    os: tuple[str, ...] = ()  # names.OSES
    browsers: tuple[str, ...] = ()  # names.BROWSERS
    connections: tuple[str, ...] = ()  # names.CONNECTIONS
    languages: tuple[str, ...] = ()  # "en": the device's
    channels: tuple[str, ...] = ()  # names.CHANNELS
    sites: AllowBlock = AllowBlock()  # domains
    apps: AllowBlock = AllowBlock()  # bundles
    publishers: AllowBlock = AllowBlock()  # publisher ids
    categories: IncludeExclude = IncludeExclude()  # IAB content categories
    daypart: dict[str, Any] = {}  # {"mon-fri": "8-22", "sat": ["8-12", "13:30-18"]}, local hours
    exchanges: tuple[str, ...] = ()  # names
    segments: IncludeExclude = IncludeExclude()  # names
    age: tuple[str, ...] = ()  # names.AGE_BANDS
    income: tuple[int, ...] = ()  # bands 1 (lowest) .. 6


class Cap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most ``cap`` billed impressions to one person in any minute, hour, day or week, or over the whole flight."""

    cap: int
    per: Literal["minute", "hour", "day", "week", "flight"]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be spent; a level left out is not limited here."""

    total: Amount | None = None
    daily: Amount | None = None
    hourly: Amount | None = None


class Flight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From ``start`` to ``end``: dates (the end day included) or ISO times (the end instant excluded)."""

    start: str | None = None
    end: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cost per action to hold: the budget is spent as long as ``stage`` costs no more than this on average."""

    cost: Amount
    stage: Literal["click", "registered", "applied", "approved", "funded"] = "applied"


class Windows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long after a click or a view a conversion is credited to it."""

    click_days: float = 30
    view_hours: float = 24  # 0: views earn nothing


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture of a native ad."""

    url: str
    w: int
    h: int


class Native(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The parts of a native ad (OpenRTB Native 1.2 assets)."""

    title: str
    desc: str = ""
    cta: str = ""
    sponsored: str = ""
    icon: Image | None = None
    image: Image | None = None
    data: dict[str, str] = {}  # further data assets, by type number: {"3": "4.6", "6": "0 USD"}


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the things that a dynamic creative may say; it is served once it is approved."""

    name: str
    text: str  # of an image its URL; "{rate}" is the offer's fact of that name
    status: Literal["pending", "approved", "rejected"] = "pending"
    when: Targeting = Targeting()  # under which circumstances it fits: daypart, geo, devices, segments, categories ...


KINDS_OF_PARTS = ("headline", "text", "cta", "image")


class Dynamic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The parts that a template is filled from; kinds without parts stay as the creative has them."""

    headline: tuple[Part, ...] = ()
    text: tuple[Part, ...] = ()
    cta: tuple[Part, ...] = ()
    image: tuple[Part, ...] = ()


class Creative(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An ad. A banner needs ``size`` or ``sizes`` ("300x250", "flex"), a native ad ``native``, a video ``media``."""

    name: str
    format: Literal["banner", "native", "video"]
    landing: str
    size: str = ""
    sizes: tuple[str, ...] = ()  # shorthand: one banner per size, "{size}" in image and markup replaced
    markup: str = ""  # own HTML; ${CLICK_URL} and ${PIXEL_URL} are ours to fill
    image: str = ""  # URL of a picture that is the whole banner
    headline: str = ""
    text: str = ""
    cta: str = ""
    disclosure: str = ""  # the small print that financial advertising must carry
    color: str = "#0b3d91"
    attr: tuple[int, ...] = ()  # OpenRTB creative attributes
    api: tuple[int, ...] = ()  # API frameworks the ad needs
    btype: int = 0  # OpenRTB banner ad type; 0: 2, or 3 with a script in the markup
    mime: str = ""
    media: str = ""  # URL of the video file
    duration_s: int = 0
    protocol: int = 7  # names.VAST_VERSIONS
    bitrate_kbps: int = 1200
    skippable: bool = False
    language: str = ""
    secure: bool | None = None  # say true to be told when some URL is not https
    frequency: tuple[Cap, ...] = ()
    native: Native | None = None
    approved: tuple[str, ...] = ()  # exchanges that have approved it, for those whose profile wants that before
    dynamic: Dynamic | None = None  # makes it a template (`dsp.catalog.dynamic`)
    when: tuple[Targeting, ...] = ()  # shown only where all of these hold
    parts: dict[str, str] = {}  # what a template's ad is made of, by kind: ours to fill


class LineItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of buying: an offer, a price brake, a budget, whom it is for and what is shown."""

    name: str
    offer: str
    max_bid_cpm: Amount
    creatives: tuple[Creative, ...]
    budget: Budget = Budget()
    pacing: Literal["even", "front", "asap"] = "even"  # front: more of a day's budget early
    target: Target | None = None
    attribution: Windows = Windows()
    flight: Flight = Flight()
    timezone: str = ""  # the advertiser's when empty
    targeting: Targeting = Targeting()
    strategy: Literal["value", "fixed"] = "value"
    deals: tuple[str, ...] = ()
    deal_only: bool | None = None  # with deals: true unless said otherwise
    allow_uncapped: bool = False
    special_category: Literal["none", "credit"] = "none"
    status: Literal["active", "paused"] = "active"
    spend_per_minute: Amount | None = None  # more than this within a minute is a fault: it stops by itself
    tolerance: Amount = 0  # share by which its budget may be exceeded, so that it is spent to the end where exchanges
    #                        do not report losses
    language: str = ""  # of its creatives; the advertiser's when empty
    frequency: tuple[Cap, ...] = ()  # caps per person; people we may not count see it only with allow_uncapped
    suppress: tuple[str, ...] = ACQUIRED  # life-cycle stages (of the offer's product) in which a person isn't shown it


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one part of the people gets instead of the usual."""

    name: str
    share: Amount  # of the people, 0..1
    control: bool = False  # is shown nothing; the bids that would have been made are logged as ghosts
    bid: Amount = 1  # multiplies what an impression is worth
    creatives: tuple[str, ...] = ()  # only these ads, by name; all when empty
    offers: tuple[str, ...] = ()  # only the line items of these offers, by name; all when empty
    model: Literal["current", "challenger"] = "current"  # challenger: the version that shadows (`dsp model shadow`)


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A split of people into arms. Shares that sum to less than 1 leave the rest as usual, in no arm."""

    name: str
    arms: tuple[Arm, ...]
    line_items: tuple[str, ...] = ()  # by name; all of the campaign's when empty
    salt: str = ""  # another one draws the arms anew, and is another experiment to the report
    status: Literal["active", "ended"] = "active"


class Campaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Line items that share a budget and a flight."""

    name: str
    line_items: tuple[LineItem, ...] = ()
    budget: Budget = Budget()
    flight: Flight = Flight()
    status: Literal["active", "paused"] = "active"
    frequency: tuple[Cap, ...] = ()
    experiments: tuple[Experiment, ...] = ()


class Advertiser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who pays, and in which currency."""

    name: str
    seat: str
    domain: tuple[str, ...]  # bid.adomain
    category: tuple[str, ...]  # bid.cat, IAB content taxonomy 1.0
    currency: str
    timezone: str
    bundle: str = ""  # the advertised app, if it is one
    language: str = "en"
    budget: Budget = Budget()
    agency_margin: Amount = 0  # share of media cost that is charged on top; budgets include it
    prepaid: bool = False  # spends what it has paid in (`dsp ledger adjust deposit`), no more
    campaigns: tuple[Campaign, ...] = ()
    frequency: tuple[Cap, ...] = ()
    product_frequency: dict[str, tuple[Cap, ...]] = {}  # product -> caps on ads for it, whoever's they are


class Payouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the advertiser counts a stage as worth, besides the margin."""

    click: Amount = 0
    apply: Amount = 0
    approve: Amount = 0
    fund: Amount = 0


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A financial product and what a customer of it is worth."""

    name: str
    product: str  # layout.PRODUCTS
    lender: str
    currency: str = ""  # when given, must be that of the advertisers that use it
    margin: Amount = 0  # of a funded customer that does not default
    lgd: Amount = 0  # loss given default, 0..1
    ead: Amount = 0  # exposure at default
    payouts: Payouts = Payouts()
    facts: dict[str, str] = {}  # what ads may say of it: {rate: 4.9 %, amount: 25,000 USD}


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place that sends bid requests."""

    name: str
    id: int
    token: str = ""  # bearer token it must send; empty: none asked for
    # How it speaks: the name of a profile (`dsp.catalog.profile`), a file beside this one, or the profile itself.
    profile: str | Profile = "openrtb"
    # What isn't written here is the profile's.
    qps: int | None = None  # per host; 0: no cap
    allowance_ms: int | None = None  # network time taken off tmax
    tmax_ms: int | None = None  # where the request has none
    currency: str | None = None  # to bid in, where the request allows it
    exp_s: int | None = None  # bid.exp, and the life of a reservation
    auction: Literal["first", "second"] | None = None  # where the request does not say
    billable: Literal["burl", "nurl", "pixel"] | None = None  # the notice that is charged
    fee: Amount | None = None  # share of the price that it charges on top
    seat: str = ""
    seats: dict[str, str] = {}  # our seat -> the one this exchange knows; seats that aren't named keep their name
    match_url: str = (
        ""  # its address for identity sync: {uid} is our id, {gdpr} {gdpr_consent} {us_privacy} {gpp} {gpp_sid}
    )
    client_header: str = ""  # "name: value" that the TLS terminator sets for its certificate; empty: none asked for
    ips: tuple[str, ...] = ()  # networks that it calls from; empty: any


class Deal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A private agreement with an exchange."""

    id: str
    exchange: str
    floor: Amount = 0
    currency: str = "USD"
    at: int = 1  # 1 first price, 2 second price, 3 floor is the price


class Currencies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rates table."""

    date: str
    rates: dict[str, Any]  # code -> US dollars for one unit


class CatalogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; every part may be left out where an earlier file has given it."""

    currencies: Currencies | None = None
    exchanges: tuple[Exchange, ...] = ()
    segments: dict[str, Any] = {}  # name -> number 1..1023, or {number:, demographic:}
    offers: tuple[Offer, ...] = ()
    deals: tuple[Deal, ...] = ()
    advertisers: tuple[Advertiser, ...] = ()
