"""The compiled snapshot's arrays, by name, shape and meaning: the contract between compiler and engine.

A snapshot is one immutable memory-mapped file of named arrays (`dsp.catalog.snapshot`). ``L`` line items, ``C``
creatives, ``A`` advertisers, ``X`` exchanges, ``W = ceil(L / 64)`` words of a bitmap row. Line items are sorted by id;
creatives lie contiguously by line item. Line item i is bit ``i & 63`` of word ``i >> 6``.

Targeting is a bitmap index: ``dim_keys/dim_rows`` is an open-addressing hash table from `dim_key` to a row of
``rows[n, W]``. An *inclusive* dimension's row for value v holds the line items that accept v, those without any rule in
the dimension included; row ``dim_any[d]`` holds just these, for an unknown value. An *exclusive* dimension's row holds
the line items that refuse v (a missing row refuses nobody).
"""

from __future__ import annotations

# --- dimensions ------------------------------------------------------------------------------------------------------
# Inclusive and checked once per request. A value is `hash_text` of the string, or the small number itself + 1.
(
    DIM_GEO,  # hash("usa"), hash_combine(hash("usa"), hash("ca")), hash_combine(that, hash(city)): OR of the three
    DIM_DEVICETYPE,  # OpenRTB devicetype + 1
    DIM_OS,  # hash of "ios", "android", "windows", "macos", "linux", "other"
    DIM_BROWSER,  # hash of "chrome", "safari", "firefox", "edge", "other" (app traffic: "app")
    DIM_CONNECTION,  # connectiontype + 1
    DIM_LANGUAGE,  # hash of the primary subtag of device.language ("en")
    DIM_CHANNEL,  # CHANNEL_* + 1
    DIM_SITE,  # hash of domain without "www." and each parent domain, or of the app bundle
    DIM_PUBLISHER,  # hash of publisher.id
    DIM_CATEGORY,  # hash of the content category of site/app, and of its parent ("iab13-4" -> "iab13")
    DIM_DAYPART,  # UTC half hour of the week (Monday 00:00 = 0) + 1; compiled from the line item's own time zone
    DIM_EXCHANGE,  # exchange index + 1
    DIM_SEGMENT,  # segment number + 1, only where the profile may be joined
    DIM_AGE,  # age band + 1
    DIM_INCOME,  # income band + 1
    DIM_ACAT,  # hash of a category the line item's ads carry, and of its parents (request acat)
    DIM_WSEAT,  # hash of the seat the line item bids from (request wseat)
    DIM_WLANG,  # hash of the creative language (request wlang)
    # Inclusive, checked per imp.
    DIM_SIZE,  # (w << 16 | h) + 1 for banners
    DIM_MEDIA,  # BANNER, VIDEO, NATIVE (line items with a creative of that medium)
    DIM_DEAL,  # hash of the deal id: line items that may bid on it (deal rows hold only those that name the deal)
    # Exclusive, per request.
    DIM_NOT_GEO,
    DIM_NOT_SITE,
    DIM_NOT_PUBLISHER,
    DIM_NOT_CATEGORY,
    DIM_NOT_SEGMENT,
    DIM_BCAT,  # hash of a category that blocks the line item (its own categories and their parents)
    DIM_BADV,  # hash of a domain that blocks it (adomain and each parent domain)
    DIM_BAPP,  # hash of the advertised app's bundle
    DIM_BSEAT,  # hash of its seat
) = range(30)
N_DIMS = 30

DIM_KEY_MULTIPLIER = 0x9E3779B97F4A7C15  # key = value ^ ((dim + 1) * multiplier), as uint64, 0 never used

# --- line item columns ------------------------------------------------------------------------------------------------
# li_i: int64[L, LI_WIDTH]
(
    LI_ID,  # public id (SQL key)
    LI_CAMPAIGN,  # campaign id
    LI_ADVERTISER,  # index into advertisers
    LI_OFFER,  # offer id
    LI_PRODUCT,  # PRODUCTS index
    LI_FLAGS,  # LIF_*
    LI_CURRENCY,  # index into currencies: the account currency that max bid, offer and budget are in
    LI_MAX_BID,  # CPM micros, account currency: the brake
    LI_START_S,  # flight, unix seconds; end exclusive
    LI_END_S,
    LI_CREATIVE0,
    LI_CREATIVES,
    LI_SEAT,  # index into seats
    LI_STRATEGY,  # 0 value (risk-adjusted), 1 fixed bid at LI_MAX_BID (for "wants everything" and tests)
    LI_LOAD,  # heads the offer needs, bit per head (1 click, 2 apply, 4 approve, 8 fund, 16 default)
    LI_SUPPRESS,  # bit per life-cycle stage (of its product) in which a person isn't shown it
) = range(16)
LI_WIDTH = 16

LIF_CREDIT = 1  # special_category: credit
LIF_ALLOW_UNCAPPED = 2
LIF_DEAL_ONLY = 4  # bids only through one of its deals
LIF_PAUSED = 8
LIF_NEEDS_PROFILE = 16  # targets segments, age or income: cannot match without a joined profile

STAGES = (
    "none", "registered", "applied", "rejected", "approved", "funded", "delinquent", "existing_customer",
)  # fmt: skip
PRODUCTS = ("loan", "credit_card", "insurance", "wealth", "deposit")

# li_v: float64[L, LIV_WIDTH], account currency, whole units (not micros)
(
    LIV_MARGIN,
    LIV_LGD,
    LIV_EAD,
    LIV_PAYOUT_CLICK,
    LIV_PAYOUT_APPLY,
    LIV_PAYOUT_APPROVE,
    LIV_PAYOUT_FUND,
    LIV_PRIOR,  # expected value per impression before any model, the start of the pre-rank score
) = range(8)
LIV_WIDTH = 8

# --- creative columns -------------------------------------------------------------------------------------------------
# cr_i: int64[C, CR_WIDTH]
(
    CR_ID,
    CR_LINE_ITEM,  # index of its line item
    CR_MEDIA,  # BANNER, VIDEO or NATIVE
    CR_W,
    CR_H,
    CR_ATTR,  # bit per creative attribute
    CR_API,  # bit per API framework the ad needs, 0 none
    CR_BTYPE,  # bit per banner ad type
    CR_PROTOCOL,  # video protocol number (0: n/a)
    CR_DURATION_S,
    CR_SECURE,  # 1: every URL is https
    CR_MIME,  # hash of its mime type
    CR_TITLE_LEN,  # native: length of the title in characters; further assets in native_json
    CR_ICON_W,
    CR_ICON_H,
    CR_IMAGE_W,
    CR_IMAGE_H,
    CR_DATA,  # native: bit per data asset type it can fill
    CR_SKIPPABLE,
    CR_REFUSED,  # bit per exchange index that doesn't take it (of the first MAX_REFUSALS)
) = range(20)
CR_WIDTH = 20
MAX_REFUSALS = 63

WHENS = 6  # conditions of one creative: its parts' and its own

# --- exchange columns -------------------------------------------------------------------------------------------------
# ex_i: int64[X, EX_WIDTH]
(
    EX_ID,
    EX_QPS,  # per host, 0 none
    EX_ALLOWANCE_MS,  # network allowance taken off tmax
    EX_TMAX_MS,  # used where the request has none
    EX_CURRENCY,  # index of the preferred bid currency
    EX_EXP_S,  # T: sent as bid.exp; a reservation's life
    EX_AUCTION,  # used where the request has no `at`: 1 first, 2 second price
    EX_BILLABLE,  # 0 billing notice, 1 win notice, 2 our own pixel
    EX_NO_BID,  # NO_BIDS index: nothing, a response without bids, one with the reason
    EX_STYLE,  # which of the templates of a creative is its
    EX_FEE_PPM,  # what it charges on top of the price, millionths
) = range(11)
EX_WIDTH = 12
NO_BIDS = ("204", "empty", "nbr")

# --- other arrays of a snapshot ---------------------------------------------------------------------------------------
# rows           uint64[R, W]      bitmap rows
# dim_keys       uint64[2^k]       open addressing, linear probing from key's mix64 & (2^k - 1); 0 empty
# dim_rows       int32[2^k]
# dim_any        int32[N_DIMS]     row of the dimension's "any" items (exclusive dimensions: -1)
# dim_used       uint8[N_DIMS]     0 where no line item has a rule in the dimension (skip it)
# deal_keys      (inside dim_keys, DIM_DEAL)
# cur_hash       int64[M]          hash_text of currency codes; cur_code S3[M]; cur_usd float64[M] (USD per unit)
# seat_hash      int64[S]
# tpl_json       uint8[...]        bid templates, % formatted; tpl_json_off int64[V * C + 1]; template v * C + c is
#                                  creative c's for exchanges of style v
# tpl_pb         uint8[...]        the same as protobuf; tpl_pb_off int64[V * C + 1]
# tpl_tokens     int32[V * C, 2]   how many times the token occurs in each (JSON, protobuf)
# native_json    uint8[...]        one JSON object per native creative: {"title", "icon": {"url", "w", "h"},
#                                  "image": {..}, "data": {"type": text}, "click", "imptrackers"} with TOKEN_SLOT where
#                                  the token goes; native_off int64[C + 1], nothing for other media
# strings        kept in `meta` (JSON): advertisers, seats, line item and creative names, exchange names and auth tokens
#                  (`dsp.catalog.meta` lists the names)
#
# caps           int64[m, CAP_WIDTH]  frequency caps (`dsp.base.caps`)
# cr_caps        int32[C, 2]       first and last + 1 of the caps that hold for a creative: its own, its line item's,
#                                  campaign's, advertiser's and product's
#
# dialect_words  int64[n]          blocks of `dsp.openrtb.dialect`
# dialect_first  int64[X]          where the block of an exchange begins, -1 without one
#
# when_*         the same bitmap index over conditions of creatives instead of line items: rows, keys, key_rows, any and
#                used
# cr_when        int32[C, WHENS]   a creative's conditions, all of which must hold: number + 1, 0 none
#
# "bit per x" everywhere: bit n (1 << n) for x number n. A banner with CR_W = CR_H = 0 is flexible: it fills any size.
# DIM_SIZE rows hold the line items with a banner of that size or a flexible one; its "any" row those with a flexible
# one. DIM_MEDIA, DIM_DEAL, DIM_ACAT, DIM_WSEAT, DIM_WLANG have an empty "any" row: nobody is there without a value.
NO_LIMIT_MICROS = 1 << 62  # a budget that is not limited at this level

TOKEN_SLOT = "{TOKEN}"  # in creative markup and URLs; in templates it has become %b
