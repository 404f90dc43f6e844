"""What must hold across a catalog file beyond its types: names exist, money is positive, flights run forwards, law.

`check` collects every problem as (path, message); nothing is saved while there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from ipaddress import ip_network
from typing import Any

import msgspec

from dsp.base.caps import MAX_CAP
from dsp.base.money import parse_micros
from dsp.catalog import types
from dsp.catalog.check_creative import check_creative
from dsp.catalog.check_experiment import check_experiments
from dsp.catalog.dynamic import combinations, fields_of
from dsp.catalog.layout import PRODUCTS, STAGES
from dsp.catalog.names import (
    AGE_BANDS,
    BROWSERS,
    CHANNELS,
    CONNECTIONS,
    CREDIT_COUNTRIES,
    CREDIT_PRODUCTS,
    DEMOGRAPHICS,
    DEVICES,
    INCOME_BANDS,
    OSES,
)
from dsp.catalog.profile import check_limits
from dsp.catalog.source import FieldPath, Problem
from dsp.catalog.times import parse_days, parse_instant, parse_span, zone

MAX_AMOUNT_MICROS = 10**18  # a million million: beyond it sums of budgets could overflow int64
_CATEGORY = re.compile(r"IAB\d{1,2}(-\d{1,2})?")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
_EXCHANGE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_GEO = re.compile(r"[A-Z]{3}(/[^/]+){0,2}")
_HEADER = re.compile(r"[a-z0-9-]+")
_LANGUAGE = re.compile(r"[a-z]{2,3}")


class Known(msgspec.Struct):
    """What is in the database already, so that a file may refer to it."""

    currencies: set[str] = msgspec.field(default_factory=lambda: {"USD"})
    exchanges: dict[str, int] = {}  # name -> id
    segments: dict[str, tuple[int, str]] = {}  # name -> number, demographic
    offers: dict[str, types.Offer] = {}
    deals: dict[str, str] = {}  # id -> exchange name
    advertisers: dict[str, str] = {}  # name -> currency


def check(file: types.CatalogFile, known: Known) -> list[Problem]:
    """Every problem of ``file``, given what is ``known``; empty when it may be saved."""
    checker = _Checker(known)
    checker.file(file)
    return checker.problems


def segment_of(value: Any) -> tuple[int, str]:
    """A segment as the file has it, a number or {number, demographic}. Raises ValueError."""
    number, demographic = value, ""
    if isinstance(value, dict) and set(value) <= {"number", "demographic"}:
        number, demographic = value.get("number"), value.get("demographic", "")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 1023:
        raise ValueError(f"{number!r} is not a segment number; write 1 to 1023")
    if demographic and demographic not in DEMOGRAPHICS:
        raise ValueError(f"unknown demographic {demographic!r}; write one of {', '.join(DEMOGRAPHICS)}")
    return number, demographic


def _pays(offer: types.Offer) -> bool:
    """Whether some stage of an offer is worth something; amounts that are wrong are told of elsewhere."""
    amounts = (offer.margin, *msgspec.structs.astuple(offer.payouts))
    return any(str(amount) not in ("0", "0.0", "-0.0") for amount in amounts)


class _Checker:
    def __init__(self, known: Known) -> None:
        self.problems: list[Problem] = []
        self.currencies = set(known.currencies)
        self.exchanges = dict(known.exchanges)
        self.segments = dict(known.segments)
        self.offers = dict(known.offers)
        self.deals = dict(known.deals)
        self.known = known

    def say(self, at: FieldPath, message: str) -> None:
        self.problems.append((at, message))

    def trying(self, at: FieldPath, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of ``call``, or None with its ValueError noted at ``at``."""
        try:
            return call(*args, **kwargs)
        except ValueError as error:
            self.say(at, str(error))
            return None

    def one_of(self, at: FieldPath, what: str, names: Sequence[str], allowed: Iterable[str]) -> None:
        for i, name in enumerate(names):
            if name not in allowed:
                self.say(
                    (*at, i), f"unknown {what} {name!r}; write one of {', '.join(allowed) or '(none are defined)'}"
                )

    def pattern(self, at: FieldPath, names: Sequence[str], pattern: re.Pattern[str], hint: str) -> None:
        for i, name in enumerate(names):
            if not pattern.fullmatch(name):
                self.say((*at, i), f"{name!r} is not {hint}")

    def duplicates(self, at: FieldPath, names: Sequence[str], field: str = "name") -> None:
        seen: set[str] = set()
        for i, name in enumerate(names):
            if name in seen:
                self.say((*at, i, field), f"{name!r} is there twice; names must differ")
            if not name.strip():
                self.say((*at, i, field), "is empty; write a name")
            seen.add(name)

    def amount(self, at: FieldPath, value: types.Amount, *, zero: bool) -> int:
        """``value`` in micros; a problem and 0 if it is not an amount, negative, or 0 where ``zero`` is not allowed."""
        try:
            micros = parse_micros(str(value))
        except (ValueError, InvalidOperation):
            micros = -1
        if micros < 0 or (micros == 0 and not zero) or micros > MAX_AMOUNT_MICROS or isinstance(value, bool):
            self.say(at, f"{value!r} is not an amount of money {'of 0 or more' if zero else 'above 0'}")
            return 0
        return micros

    def share(self, at: FieldPath, value: types.Amount, most: float = 1) -> None:
        try:
            fine = 0 <= Decimal(str(value)) <= Decimal(str(most))
        except InvalidOperation:
            fine = False
        if not fine:
            self.say(at, f"{value!r} is not a share; write a number from 0 to {most}")

    def caps(self, at: FieldPath, caps: tuple[types.Cap, ...]) -> None:
        for i, cap in enumerate(caps):
            if not 1 <= cap.cap <= MAX_CAP:
                self.say((*at, i, "cap"), f"{cap.cap} is no cap; write 1 to {MAX_CAP}")
            if cap.per in [other.per for other in caps[:i]]:
                self.say((*at, i, "per"), f"{cap.per} is there twice; keep the smaller cap")

    def currency(self, at: FieldPath, code: str) -> None:
        if code not in self.currencies:
            names = ", ".join(sorted(self.currencies))
            self.say(at, f"unknown currency {code!r}; write one of {names}, or add its rate to currencies.rates")

    # --- the parts of a file -----------------------------------------------------------------------------------------
    def file(self, file: types.CatalogFile) -> None:
        if file.currencies is not None:
            self.rates(file.currencies)
        self.exchange_list(file.exchanges)
        numbers = {number: name for name, (number, _) in self.segments.items()}
        for name, value in file.segments.items():
            segment = self.trying(("segments", name), segment_of, value)
            if segment is None:
                continue
            if numbers.setdefault(segment[0], name) != name:
                self.say(("segments", name), f"number {segment[0]} is {numbers[segment[0]]!r} already; take another")
            self.segments[name] = segment
        self.offer_list(file.offers)
        self.deal_list(file.deals)
        self.duplicates(("advertisers",), [a.name for a in file.advertisers])
        for i, advertiser in enumerate(file.advertisers):
            self.advertiser(("advertisers", i), advertiser)

    def rates(self, table: types.Currencies) -> None:
        at: FieldPath = ("currencies",)
        self.trying((*at, "date"), parse_instant, table.date, "UTC", end=False)
        for code, rate in table.rates.items():
            number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
            if not re.fullmatch("[A-Z]{3}", code):
                self.say((*at, "rates", code), f"{code!r} is not a currency code; write three capitals such as EUR")
            elif not number or not math.isfinite(rate) or rate <= 0 or (code == "USD" and rate != 1):
                want = "1" if code == "USD" else "the US dollars that one unit is worth, above 0"
                self.say((*at, "rates", code), f"{rate!r} is not a rate; write {want}")
            else:
                self.currencies.add(code)

    def exchange_list(self, exchanges: tuple[types.Exchange, ...]) -> None:
        self.duplicates(("exchanges",), [x.name for x in exchanges])
        by_id = {number: name for name, number in self.exchanges.items()}
        for i, exchange in enumerate(exchanges):
            at: FieldPath = ("exchanges", i)
            if not _EXCHANGE.fullmatch(exchange.name):
                self.say((*at, "name"), f"{exchange.name!r} is part of a URL; write a-z, 0-9, - and _ only")
            if not 1 <= exchange.id <= 65535:
                self.say((*at, "id"), f"{exchange.id} is not an exchange id; write 1 to 65535")
            elif by_id.setdefault(exchange.id, exchange.name) != exchange.name:
                self.say((*at, "id"), f"{exchange.id} is {by_id[exchange.id]!r} already; take another")
            elif self.known.exchanges.get(exchange.name, exchange.id) != exchange.id:
                self.say((*at, "id"), f"was {self.known.exchanges[exchange.name]} before; ids never change")
            limits = check_limits(exchange.qps, exchange.allowance_ms, exchange.tmax_ms, exchange.exp_s)
            self.problems += [((*at, *path), text) for path, text in limits]
            self.exchange_access(at, exchange)
            if exchange.currency is not None:
                self.currency((*at, "currency"), exchange.currency)
            self.exchanges[exchange.name] = exchange.id

    def exchange_access(self, at: FieldPath, exchange: types.Exchange) -> None:
        """How an exchange shows who it is, and what it calls our seats."""
        name, colon, value = exchange.client_header.partition(":")
        if exchange.client_header and not (colon and _HEADER.fullmatch(name) and value.strip()):
            self.say((*at, "client_header"), "is not a header; write x-client-dn: CN=bidder.exchange.example")
        for i, network in enumerate(exchange.ips):
            self.trying((*at, "ips", i), ip_network, network)
        if exchange.match_url and not re.match(r"https://[^/\s]+/\S*\{uid\}", exchange.match_url):
            self.say((*at, "match_url"), "is no https address with {uid} in it, where our id goes")
        theirs = list(exchange.seats.values())
        for ours, seat in exchange.seats.items():
            if not seat or theirs.count(seat) > 1:
                self.say((*at, "seats", ours), "must be a seat of its own; two of ours can't be one of theirs")

    def offer_list(self, offers: tuple[types.Offer, ...]) -> None:
        self.duplicates(("offers",), [o.name for o in offers])
        for i, offer in enumerate(offers):
            at: FieldPath = ("offers", i)
            if offer.product not in PRODUCTS:
                self.say((*at, "product"), f"unknown product {offer.product!r}; write one of {', '.join(PRODUCTS)}")
            if offer.currency:
                self.currency((*at, "currency"), offer.currency)
            self.amount((*at, "margin"), offer.margin, zero=True)
            self.amount((*at, "ead"), offer.ead, zero=True)
            self.share((*at, "lgd"), offer.lgd)
            for stage in ("click", "apply", "approve", "fund"):
                self.amount((*at, "payouts", stage), getattr(offer.payouts, stage), zero=True)
            self.offers[offer.name] = offer

    def deal_list(self, deals: tuple[types.Deal, ...]) -> None:
        self.duplicates(("deals",), [d.id for d in deals], "id")
        for i, deal in enumerate(deals):
            at: FieldPath = ("deals", i)
            if deal.exchange not in self.exchanges:
                names = ", ".join(sorted(self.exchanges)) or "(none are defined)"
                self.say((*at, "exchange"), f"unknown exchange {deal.exchange!r}; write one of {names}")
            self.amount((*at, "floor"), deal.floor, zero=True)
            self.currency((*at, "currency"), deal.currency)
            if deal.at not in (1, 2, 3):
                self.say((*at, "at"), f"{deal.at} is no auction type; write 1 first price, 2 second price or 3 fixed")
            self.deals[deal.id] = deal.exchange

    def budget(self, at: FieldPath, budget: types.Budget) -> bool:
        """Whether ``budget`` sets a limit."""
        least: tuple[int, types.Amount, str] | None = None
        for name in ("total", "daily", "hourly"):
            value = getattr(budget, name)
            if value is None:
                continue
            micros = self.amount((*at, "budget", name), value, zero=False)
            if least is not None and micros > least[0]:
                self.say((*at, "budget", name), f"{value} is more than the {least[2]} of {least[1]}")
            least = (micros, value, name) if micros else least
        return budget != types.Budget()

    def flight(self, at: FieldPath, flight: types.Flight, zone_name: str) -> tuple[int | None, int | None]:
        start, end = (
            None
            if text is None
            else self.trying((*at, "flight", name), parse_instant, text, zone_name, end=name == "end")
            for name, text in (("start", flight.start), ("end", flight.end))
        )
        if start is not None and end is not None and end <= start:
            self.say((*at, "flight", "end"), f"{flight.end} is not after the start, {flight.start}")
        return start, end

    def advertiser(self, at: FieldPath, advertiser: types.Advertiser) -> None:
        self.currency((*at, "currency"), advertiser.currency)
        before = self.known.advertisers.get(advertiser.name, advertiser.currency)
        if before != advertiser.currency:
            self.say(
                (*at, "currency"), f"was {before} before, and its books are kept in it; add a new advertiser instead"
            )
        has_zone = self.trying((*at, "timezone"), zone, advertiser.timezone) is not None
        if not advertiser.seat.strip():
            self.say((*at, "seat"), "is empty; write the buyer seat that exchanges know")
        for field in ("domain", "category"):
            if not getattr(advertiser, field):
                self.say((*at, field), "is empty; exchanges refuse ads without it")
        self.pattern((*at, "domain"), advertiser.domain, _DOMAIN, "a domain; write bank.example, without http://")
        self.pattern((*at, "category"), advertiser.category, _CATEGORY, "an IAB category; write IAB13 or IAB13-4")
        self.pattern((*at, "language"), (advertiser.language,), _LANGUAGE, "a language; write en or zh")
        limited = self.budget(at, advertiser.budget) or advertiser.prepaid
        self.share((*at, "agency_margin"), advertiser.agency_margin)
        self.caps((*at, "frequency"), advertiser.frequency)
        self.one_of((*at, "product_frequency"), "product", list(advertiser.product_frequency), PRODUCTS)
        for product, caps in advertiser.product_frequency.items():
            self.caps((*at, "product_frequency", product), caps)
        self.duplicates((*at, "campaigns"), [c.name for c in advertiser.campaigns])
        for i, campaign in enumerate(advertiser.campaigns):
            c_at = (*at, "campaigns", i)
            c_limited = self.budget(c_at, campaign.budget) or limited
            self.caps((*c_at, "frequency"), campaign.frequency)
            c_flight = self.flight(c_at, campaign.flight, advertiser.timezone) if has_zone else (None, None)
            check_experiments((*c_at, "experiments"), campaign, self.say)
            self.duplicates((*c_at, "line_items"), [li.name for li in campaign.line_items])
            for k, item in enumerate(campaign.line_items):
                i_at = (*c_at, "line_items", k)
                self.line_item(i_at, item, advertiser, has_zone)
                if not self.budget(i_at, item.budget) and not c_limited:
                    self.say((*i_at, "budget"), "no budget here, in the campaign or the advertiser; write {total: ...}")
                zone_ok = has_zone if not item.timezone else self._zone_ok(item.timezone)
                start, end = (
                    self.flight(i_at, item.flight, item.timezone or advertiser.timezone) if zone_ok else (None,) * 2
                )
                if (start and c_flight[1] and start >= c_flight[1]) or (end and c_flight[0] and end <= c_flight[0]):
                    self.say((*i_at, "flight"), "lies outside the campaign's flight; it would never run")

    @staticmethod
    def _zone_ok(name: str) -> bool:
        try:
            return zone(name) is not None
        except ValueError:
            return False

    def line_item(self, at: FieldPath, item: types.LineItem, advertiser: types.Advertiser, has_zone: bool) -> None:
        offer = self.offers.get(item.offer)
        if offer is None:
            names = ", ".join(sorted(self.offers)[:20]) or "(none are defined)"
            self.say((*at, "offer"), f"unknown offer {item.offer!r}; write one of {names}")
        elif offer.currency and offer.currency != advertiser.currency:
            self.say((*at, "offer"), f"is in {offer.currency}, the advertiser in {advertiser.currency}")
        elif item.strategy == "value" and not _pays(offer):
            self.say(
                (*at, "offer"), f"{item.offer!r} has no margin and no payout: at strategy value it would never bid"
            )
        self.amount((*at, "max_bid_cpm"), item.max_bid_cpm, zero=False)
        if item.spend_per_minute is not None:
            self.amount((*at, "spend_per_minute"), item.spend_per_minute, zero=False)
        self.share((*at, "tolerance"), item.tolerance, 0.1)
        self.caps((*at, "frequency"), item.frequency)
        self.one_of((*at, "suppress"), "stage", item.suppress, STAGES)
        for i, creative in enumerate(item.creatives):
            self.caps((*at, "creatives", i, "frequency"), creative.frequency)
        if item.target is not None:
            self.amount((*at, "target", "cost"), item.target.cost, zero=False)
        if not 0 <= item.attribution.click_days <= 90:
            self.say((*at, "attribution", "click_days"), "not a window; write days from 0 to 90")
        if not 0 <= item.attribution.view_hours <= 30 * 24:
            self.say((*at, "attribution", "view_hours"), "not a window; write hours from 0 to 720")
        if item.timezone:
            self.trying((*at, "timezone"), zone, item.timezone)
        self.pattern((*at, "language"), (item.language,) if item.language else (), _LANGUAGE, "a language; write en")
        self.one_of((*at, "deals"), "deal", item.deals, self.deals)
        if item.deal_only and not item.deals:
            self.say((*at, "deal_only"), "there are no deals; list them in deals")
        if item.targeting.exchanges:
            for i, deal in enumerate(item.deals):
                if deal in self.deals and self.deals[deal] not in item.targeting.exchanges:
                    self.say((*at, "deals", i), f"is with {self.deals[deal]}, which targeting.exchanges leaves out")
        self.targeting((*at, "targeting"), item.targeting)
        if item.special_category == "credit" or (offer is not None and offer.product in CREDIT_PRODUCTS):
            self.credit((*at, "targeting"), item.targeting)
        if item.status != "active":
            pass  # it may still wait for its ads
        elif not item.creatives:
            self.say((*at, "creatives"), "is empty; without an ad it would never bid")
        elif not any(combinations(creative) for creative in item.creatives):
            self.say((*at, "creatives"), "has templates without approved parts only; without an ad it would never bid")
        self.duplicates((*at, "creatives"), [c.name for c in item.creatives])
        language = item.language or advertiser.language
        for i, creative in enumerate(item.creatives):
            self.problems += check_creative((*at, "creatives", i), creative, language)
            self.one_of((*at, "creatives", i, "approved"), "exchange", creative.approved, self.exchanges)
            self.circumstances((*at, "creatives", i), creative, item, offer)

    def circumstances(
        self, at: FieldPath, creative: types.Creative, item: types.LineItem, offer: types.Offer | None
    ) -> None:
        """When the ad and its parts are shown, and which facts of the offer they quote."""
        places = [((*at, "when", i), when) for i, when in enumerate(creative.when)]
        if creative.dynamic is not None:
            for kind in types.KINDS_OF_PARTS:
                for i, part in enumerate(getattr(creative.dynamic, kind)):
                    places.append(((*at, "dynamic", kind, i, "when"), part.when))
        credit = item.special_category == "credit" or (offer is not None and offer.product in CREDIT_PRODUCTS)
        for w_at, when in places:
            self.targeting(w_at, when)
            if credit:
                geo = when.geo if when.geo.include else item.targeting.geo
                self.credit(w_at, msgspec.structs.replace(when, geo=geo))
        if offer is not None:
            for name in sorted(fields_of(creative) - offer.facts.keys()):
                known = ", ".join(offer.facts) or "none"
                self.say(at, f"quotes {{{name}}}, which offer {offer.name!r} has no fact for; its facts: {known}")

    def targeting(self, at: FieldPath, t: types.Targeting) -> None:
        for field, names in (("include", t.geo.include), ("exclude", t.geo.exclude)):
            self.pattern((*at, "geo", field), names, _GEO, "a place; write USA, USA/CA or USA/CA/Los Angeles")
        for field, names in (("include", t.categories.include), ("exclude", t.categories.exclude)):
            self.pattern((*at, "categories", field), names, _CATEGORY, "an IAB category; write IAB13 or IAB13-4")
        for field, names in (("include", t.segments.include), ("exclude", t.segments.exclude)):
            self.one_of((*at, "segments", field), "segment", names, self.segments)
        self.one_of((*at, "devices"), "device", t.devices, DEVICES)
        self.one_of((*at, "os"), "operating system", t.os, OSES)
        self.one_of((*at, "browsers"), "browser", t.browsers, BROWSERS)
        self.one_of((*at, "connections"), "connection", t.connections, CONNECTIONS)
        self.one_of((*at, "channels"), "channel", t.channels, CHANNELS)
        self.one_of((*at, "exchanges"), "exchange", t.exchanges, self.exchanges)
        self.one_of((*at, "age"), "age band", t.age, AGE_BANDS)
        self.pattern((*at, "languages"), t.languages, _LANGUAGE, "a language; write en or zh")
        for field, names in (("allow", t.sites.allow), ("block", t.sites.block)):
            self.pattern((*at, "sites", field), names, _DOMAIN, "a domain; write news.example, without http://")
        for i, band in enumerate(t.income):
            if band not in INCOME_BANDS:
                self.say((*at, "income", i), f"unknown income band {band}; write 1 (lowest) to 6")
        for days, spans in t.daypart.items():
            self.trying((*at, "daypart", days), parse_days, days)
            for span in spans if isinstance(spans, list) else [spans]:
                self.trying((*at, "daypart", days), parse_span, span)

    def credit(self, at: FieldPath, t: types.Targeting) -> None:
        """Credit may not be targeted on demographics where the law forbids it (design 7)."""
        included = {place[:3] for place in t.geo.include} or set(CREDIT_COUNTRIES)
        where = sorted(c for c in included & set(CREDIT_COUNTRIES) if c not in t.geo.exclude)
        if not where:
            return
        rule = "; ".join(f"{c}: {CREDIT_COUNTRIES[c]}" for c in where)
        fix = f"take it out, or leave {' and '.join(where)} out of targeting.geo"
        if t.age:
            self.say((*at, "age"), f"credit may not be targeted by age ({rule}); {fix}")
        for field, names in (("include", t.segments.include), ("exclude", t.segments.exclude)):
            for i, name in enumerate(names):
                demographic = self.segments.get(name, (0, ""))[1]
                if demographic:
                    message = f"credit may not be targeted by {demographic}, which {name!r} stands for ({rule}); {fix}"
                    self.say((*at, "segments", field, i), message)
