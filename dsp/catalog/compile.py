"""Catalog -> the arrays and texts of a snapshot (`dsp.catalog.layout`, `dsp.catalog.snapshot`).

A pure function of the catalog, the public URL and the time (which decides the UTC offset of dayparts). Archived and
paused line items stay in, flagged, because notices of their bids are still on the way.

The meta is `dsp.catalog.meta`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dsp.base.caps import ADVERTISER, CAMPAIGN, CAP_WIDTH, CREATIVE, LINE_ITEM, PRODUCT, WINDOWS_S
from dsp.catalog.index import IndexBuilder
from dsp.catalog.layout import (
    CR_API,
    CR_ATTR,
    CR_BTYPE,
    CR_DATA,
    CR_DURATION_S,
    CR_H,
    CR_ICON_H,
    CR_ICON_W,
    CR_ID,
    CR_IMAGE_H,
    CR_IMAGE_W,
    CR_LINE_ITEM,
    CR_MEDIA,
    CR_MIME,
    CR_PROTOCOL,
    CR_REFUSED,
    CR_SECURE,
    CR_SKIPPABLE,
    CR_TITLE_LEN,
    CR_W,
    CR_WIDTH,
    DIM_NOT_GEO,
    EX_ALLOWANCE_MS,
    EX_AUCTION,
    EX_BILLABLE,
    EX_CURRENCY,
    EX_EXP_S,
    EX_FEE_PPM,
    EX_ID,
    EX_NO_BID,
    EX_QPS,
    EX_STYLE,
    EX_TMAX_MS,
    EX_WIDTH,
    LI_ADVERTISER,
    LI_CAMPAIGN,
    LI_CREATIVE0,
    LI_CREATIVES,
    LI_CURRENCY,
    LI_END_S,
    LI_FLAGS,
    LI_ID,
    LI_LOAD,
    LI_MAX_BID,
    LI_OFFER,
    LI_PRODUCT,
    LI_SEAT,
    LI_START_S,
    LI_STRATEGY,
    LI_SUPPRESS,
    LI_WIDTH,
    LIF_ALLOW_UNCAPPED,
    LIF_CREDIT,
    LIF_DEAL_ONLY,
    LIF_NEEDS_PROFILE,
    LIF_PAUSED,
    LIV_EAD,
    LIV_LGD,
    LIV_MARGIN,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_FUND,
    LIV_PRIOR,
    LIV_WIDTH,
    NO_BIDS,
    PRODUCTS,
    STAGES,
    WHENS,
)
from dsp.catalog.markup import is_secure, mime_of, native_data, native_parts
from dsp.catalog.meta import build_meta
from dsp.catalog.profile import fee_ppm
from dsp.catalog.records import Campaign, Catalog, Creative, LineItem, Offer
from dsp.catalog.rules import MEDIA, Rules
from dsp.catalog.style import Refusals, seats_of, style_of
from dsp.catalog.templates import attributes, render
from dsp.catalog.types import Cap
from dsp.catalog.view import View
from dsp.openrtb.dialect import compile_dialects

Arrays = dict[str, npt.NDArray[Any]]

# Base rates before any model has learned, for `LIV_PRIOR` only: financial display advertising at large.
_P_CLICK, _P_APPLY, _P_APPROVE, _P_FUND, _P_DEFAULT = 0.0015, 0.06, 0.5, 0.7, 0.04
_HEAD_CLICK, _HEAD_APPLY, _HEAD_APPROVE, _HEAD_FUND, _HEAD_DEFAULT = 1, 2, 4, 8, 16


def compile_catalog(catalog: Catalog, version: int, public_url: str, now_s: float) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the meta of snapshot ``version``; notice URLs start with ``public_url``; unix ``now_s``."""
    view = View(catalog, public_url.rstrip("/"), version, now_s)
    arrays: Arrays = {**_currencies(catalog, view), **_exchanges(catalog, view)}
    arrays["seat_hash"] = np.array([view.hashes[seat] for seat in view.seats], np.int64)
    builder = IndexBuilder(len(catalog.line_items))
    rules = Rules(catalog, builder, now_s)
    for i, item in enumerate(catalog.line_items):
        rules.add(i, item, view.advertiser_of(item), view.creatives[i])
    arrays |= builder.build(DIM_NOT_GEO)
    arrays |= _conditions(catalog, view, rules)
    arrays["li_i"], arrays["li_v"] = _line_items(catalog, view)
    arrays["cr_i"] = _creatives(view)
    refusals = Refusals(catalog.exchanges)
    if refusals.any:
        arrays["cr_i"][:, CR_REFUSED] = [
            refusals.of(creative, view.advertiser_of(item))
            for item, of_item in zip(catalog.line_items, view.creatives, strict=True)
            for creative in of_item
        ]
    arrays["caps"], arrays["cr_caps"] = _caps(catalog, view)
    arrays |= _texts(catalog, view)
    return arrays, build_meta(catalog, view, rules.zones)


def _conditions(catalog: Catalog, view: View, rules: Rules) -> Arrays:
    """The circumstances under which creatives are shown, each once, as an index like that of the line items."""
    numbers: dict[tuple[bytes, str], int] = {}
    held: list[LineItem] = []
    rows: list[list[int]] = []
    for item, of_item in zip(catalog.line_items, view.creatives, strict=True):
        for creative in of_item:
            row = [0] * WHENS
            for k, when in enumerate(creative.spec.when):
                key = (msgspec.json.encode(when), item.timezone)
                if key not in numbers:
                    numbers[key] = len(held)
                    held.append(msgspec.structs.replace(item, targeting=when))
                row[k] = numbers[key] + 1
            rows.append(row)
    builder = IndexBuilder(len(held))
    index = Rules(catalog, builder, view.now_s)
    for i, item in enumerate(held):
        index.add_condition(i, item)
    rules.zones |= index.zones
    built = builder.build(DIM_NOT_GEO)
    names = {"rows": "when_rows", "dim_keys": "when_keys", "dim_rows": "when_key_rows"}
    names |= {"dim_any": "when_any", "dim_used": "when_used"}
    out: Arrays = {names[name]: array for name, array in built.items()}
    out["cr_when"] = np.array(rows, np.int32).reshape(len(rows), WHENS)
    return out


def _currencies(catalog: Catalog, view: View) -> Arrays:
    return {
        "cur_hash": np.array([view.hashes[c.code] for c in catalog.currencies], np.int64),
        "cur_code": np.array([c.code.encode() for c in catalog.currencies], "S3"),
        "cur_usd": np.array([c.usd for c in catalog.currencies], np.float64),
    }


def _exchanges(catalog: Catalog, view: View) -> Arrays:
    table = np.zeros((len(catalog.exchanges), EX_WIDTH), np.int64)
    for row, x in zip(table, catalog.exchanges, strict=True):
        row[EX_ID], row[EX_QPS], row[EX_ALLOWANCE_MS], row[EX_TMAX_MS] = x.id, x.qps, x.allowance_ms, x.tmax_ms
        row[EX_CURRENCY], row[EX_EXP_S] = view.currencies[x.currency], x.exp_s
        row[EX_AUCTION] = 2 if x.auction == "second" else 1
        row[EX_BILLABLE] = ("burl", "nurl", "pixel").index(x.billable)
        row[EX_NO_BID] = NO_BIDS.index(x.profile.no_bid)
        row[EX_FEE_PPM] = fee_ppm(x.profile)
        row[EX_STYLE] = view.styles.index(style_of(x))
    words, first = compile_dialects([(x.profile.request, seats_of(x)) for x in catalog.exchanges])
    return {"ex_i": table, "dialect_words": words, "dialect_first": first}


def heads(offer: Offer, strategy: str) -> int:
    """Which model heads a line item's value needs, a bit per head: a stage counts if it or a later one pays."""
    if strategy == "fixed":
        return 0
    if offer.margin or offer.payout_fund:
        needed = _HEAD_CLICK | _HEAD_APPLY | _HEAD_APPROVE | _HEAD_FUND
    elif offer.payout_approve:
        needed = _HEAD_CLICK | _HEAD_APPLY | _HEAD_APPROVE
    elif offer.payout_apply:
        needed = _HEAD_CLICK | _HEAD_APPLY
    else:
        needed = _HEAD_CLICK if offer.payout_click else 0
    return needed | (_HEAD_DEFAULT if needed & _HEAD_FUND and offer.lgd * offer.ead else 0)


def prior_value(offer: Offer) -> float:
    """The value of an impression (design 4) at base rates, in whole units of the account currency."""
    apply = _P_CLICK * _P_APPLY
    fund = apply * _P_APPROVE * _P_FUND
    payouts = _P_CLICK * offer.payout_click + apply * offer.payout_apply + apply * _P_APPROVE * offer.payout_approve
    return payouts + fund * (offer.payout_fund + offer.margin - _P_DEFAULT * offer.lgd * offer.ead)


def _flags(item: LineItem, campaign: Campaign) -> int:
    t = item.targeting
    flags = LIF_CREDIT if item.credit else 0
    flags |= LIF_ALLOW_UNCAPPED if item.allow_uncapped else 0
    flags |= LIF_DEAL_ONLY if item.deal_only else 0
    flags |= 0 if item.status == campaign.status == "active" else LIF_PAUSED
    return flags | (LIF_NEEDS_PROFILE if t.segments.include or t.age or t.income else 0)


def _line_items(catalog: Catalog, view: View) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    numbers = np.zeros((len(catalog.line_items), LI_WIDTH), np.int64)
    values = np.zeros((len(catalog.line_items), LIV_WIDTH), np.float64)
    seats = {seat: i for i, seat in enumerate(view.seats)}
    count = np.array([len(of_item) for of_item in view.creatives], np.int64)
    columns: dict[int, list[int]] = {c: [] for c in range(LI_WIDTH) if c not in (LI_CREATIVE0, LI_CREATIVES)}
    by_offer = {o.id: _offer_values(o) for o in catalog.offers}
    for i, item in enumerate(catalog.line_items):
        advertiser, offer, campaign = (
            view.advertiser_of(item),
            view.offers[item.offer_id],
            view.campaigns[item.campaign_id],
        )
        start_s, end_s = view.flight(item)
        for column, value in (
            (LI_ID, item.id),
            (LI_CAMPAIGN, item.campaign_id),
            (LI_ADVERTISER, view.advertiser_index[advertiser.id]),
            (LI_OFFER, item.offer_id),
            (LI_PRODUCT, PRODUCTS.index(offer.product)),
            (LI_FLAGS, _flags(item, campaign)),
            (LI_CURRENCY, view.currencies[advertiser.currency]),
            (LI_MAX_BID, item.max_bid_micros),
            (LI_START_S, start_s),
            (LI_END_S, end_s),
            (LI_SEAT, seats[advertiser.seat]),
            (LI_STRATEGY, int(item.strategy == "fixed")),
            (LI_LOAD, heads(offer, item.strategy)),
            (LI_SUPPRESS, _bits(STAGES.index(stage) for stage in item.suppress)),
        ):
            columns[column].append(value)
        values[i] = by_offer[offer.id]
        if item.strategy == "fixed":
            values[i, LIV_PRIOR] = item.max_bid_micros / 1e9  # CPM micros -> whole units for one impression
    for column, column_values in columns.items():
        if column_values:
            numbers[:, column] = column_values
    numbers[:, LI_CREATIVES] = count
    numbers[:, LI_CREATIVE0] = np.cumsum(count) - count
    return numbers, values


def _offer_values(offer: Offer) -> npt.NDArray[np.float64]:
    row = np.zeros(LIV_WIDTH)
    row[LIV_MARGIN], row[LIV_LGD], row[LIV_EAD] = offer.margin, offer.lgd, offer.ead
    row[LIV_PAYOUT_CLICK], row[LIV_PAYOUT_APPLY] = offer.payout_click, offer.payout_apply
    row[LIV_PAYOUT_APPROVE], row[LIV_PAYOUT_FUND] = offer.payout_approve, offer.payout_fund
    row[LIV_PRIOR] = prior_value(offer)
    return row


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << n for n in set(numbers))


def _creatives(view: View) -> npt.NDArray[np.int64]:
    rows = [_creative(creative, i, view) for i, of_item in enumerate(view.creatives) for creative in of_item]
    return np.array(rows, np.int64).reshape(len(rows), CR_WIDTH)


def _creative(creative: Creative, line_item: int, view: View) -> list[int]:
    spec, row = creative.spec, [0] * CR_WIDTH
    row[CR_ID], row[CR_LINE_ITEM], row[CR_MEDIA] = creative.id, line_item, MEDIA[creative.format]
    row[CR_W], row[CR_H] = creative.w, creative.h
    row[CR_ATTR], row[CR_API] = _bits(attributes(spec)), _bits(spec.api)
    row[CR_SECURE] = int(is_secure(spec, view.urls.public))
    mime = mime_of(spec)
    row[CR_MIME] = view.hashes[mime] if mime else 0
    if creative.format == "banner":
        row[CR_BTYPE] = 1 << (spec.btype or (3 if "<script" in spec.markup else 2))
    elif creative.format == "video":
        row[CR_PROTOCOL], row[CR_DURATION_S], row[CR_SKIPPABLE] = spec.protocol, spec.duration_s, int(spec.skippable)
    elif spec.native is not None:
        row[CR_TITLE_LEN] = len(spec.native.title)
        row[CR_DATA] = _bits(int(kind) for kind in native_data(spec))
        if spec.native.icon is not None:
            row[CR_ICON_W], row[CR_ICON_H] = spec.native.icon.w, spec.native.icon.h
        if spec.native.image is not None:
            row[CR_IMAGE_W], row[CR_IMAGE_H] = spec.native.image.w, spec.native.image.h
    return row


def _caps(catalog: Catalog, view: View) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """The caps, and which of them hold for each creative; creatives of one line item share its caps' rows."""
    caps: list[tuple[int, int, int, int]] = []
    spans: list[tuple[int, int]] = []

    def add(kind: int, number: int, wanted: tuple[Cap, ...]) -> None:
        caps.extend((kind, number, WINDOWS_S[cap.per], cap.cap) for cap in wanted)

    def add_item(item: LineItem) -> None:
        advertiser, campaign = view.advertiser_of(item), view.campaigns[item.campaign_id]
        product = view.offers[item.offer_id].product
        add(LINE_ITEM, item.id, item.frequency)
        add(CAMPAIGN, campaign.id, campaign.frequency)
        add(ADVERTISER, advertiser.id, advertiser.frequency)
        add(PRODUCT, PRODUCTS.index(product), advertiser.product_frequency.get(product, ()))

    for item, of_item in zip(catalog.line_items, view.creatives, strict=True):
        first = len(caps)
        add_item(item)
        shared = (first, len(caps))
        for creative in of_item:
            if creative.spec.frequency:
                first = len(caps)
                add(CREATIVE, creative.id, creative.spec.frequency)
                add_item(item)
                spans.append((first, len(caps)))
            else:
                spans.append(shared)
    return np.array(caps, np.int64).reshape(-1, CAP_WIDTH), np.array(spans, np.int32).reshape(-1, 2)


def _texts(catalog: Catalog, view: View) -> Arrays:
    """Templates and native parts of all creatives, each kind as one buffer with offsets."""
    json_texts, pb_texts, native_texts, tokens = [], [], [], []
    for style in view.styles:
        for item, of_item in zip(catalog.line_items, view.creatives, strict=True):
            advertiser = view.advertiser_of(item)
            for creative in of_item:
                template = render(creative, item, advertiser, view.urls, style)
                json_texts.append(template.json)
                pb_texts.append(template.pb)
                tokens.append((template.json_tokens, template.pb_tokens))
    for of_item in view.creatives:
        for creative in of_item:
            native_texts.append(
                msgspec.json.encode(native_parts(creative.spec, view.urls)) if creative.format == "native" else b""
            )
    arrays: Arrays = {"tpl_tokens": np.array(tokens, np.int32).reshape(len(tokens), 2)}
    arrays["tpl_json"], arrays["tpl_json_off"] = _joined(json_texts)
    arrays["tpl_pb"], arrays["tpl_pb_off"] = _joined(pb_texts)
    arrays["native_json"], arrays["native_off"] = _joined(native_texts)
    return arrays


def _joined(texts: list[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(b"".join(texts), np.uint8), offsets
