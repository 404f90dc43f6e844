"""Codes of OpenRTB 2.6: why we did not bid (`nbr`), why a bid lost (``${AUCTION_LOSS}``), and the 2.6 enumerations.

Numbers below 500 are the specification's (lists "No-Bid Reason Codes" and "Loss Reason Codes", AdCOM 1.0); 500 and up
are ours. A business refusal is one of these numbers, counted by it, never an exception.
"""

from __future__ import annotations

# --- no-bid reasons of the specification ---------------------------------------------------------------------------
NBR_UNKNOWN = 0
NBR_TECHNICAL = 1
NBR_INVALID_REQUEST = 2
NBR_CRAWLER = 3
NBR_NON_HUMAN = 4
NBR_PROXY_IP = 5
NBR_UNSUPPORTED_DEVICE = 6
NBR_BLOCKED_PUBLISHER = 7
NBR_UNMATCHED_USER = 8
NBR_DAILY_USER_CAP = 9
NBR_DAILY_DOMAIN_CAP = 10
NBR_ADS_TXT_UNAVAILABLE = 11
NBR_ADS_TXT_VIOLATION = 12
NBR_ADS_CERT_UNAVAILABLE = 13
NBR_ADS_CERT_VIOLATION = 14
NBR_INSUFFICIENT_TIME = 15
NBR_INCOMPLETE_SCHAIN = 16
NBR_BLOCKED_SCHAIN_NODE = 17

# --- our own -------------------------------------------------------------------------------------------------------
NBR_NO_ELIGIBLE = 500
NBR_NO_BUDGET = 501
NBR_BELOW_FLOOR = 502
NBR_NO_CURRENCY = 503
NBR_CONSENT = 504
NBR_BLOCKED = 505
NBR_FORMAT = 506
NBR_NOT_INTERESTED = 507
NBR_KILL_SWITCH = 508
NBR_NO_DEAL = 509
NBR_FREQUENCY_CAP = 510
NBR_NOT_READY = 511
NBR_HELD_OUT = 512
NBR_NOT_WORTH = 513
NBR_VIEWABILITY = 514
NBR_UNLISTED_SELLER = 515
NBR_DUPLICATE = 516

NBR_TEXT: dict[int, str] = {
    NBR_UNKNOWN: "unknown",
    NBR_TECHNICAL: "technical error",
    NBR_INVALID_REQUEST: "invalid request",
    NBR_CRAWLER: "known web crawler",
    NBR_NON_HUMAN: "suspected non-human traffic",
    NBR_PROXY_IP: "cloud, data-centre or proxy IP",
    NBR_UNSUPPORTED_DEVICE: "unsupported device",
    NBR_BLOCKED_PUBLISHER: "blocked publisher or site",
    NBR_UNMATCHED_USER: "unmatched user",
    NBR_DAILY_USER_CAP: "daily user cap met",
    NBR_DAILY_DOMAIN_CAP: "daily domain cap met",
    NBR_ADS_TXT_UNAVAILABLE: "ads.txt authorisation unavailable",
    NBR_ADS_TXT_VIOLATION: "ads.txt authorisation violation",
    NBR_ADS_CERT_UNAVAILABLE: "ads.cert authentication unavailable",
    NBR_ADS_CERT_VIOLATION: "ads.cert authentication violation",
    NBR_INSUFFICIENT_TIME: "insufficient auction time",
    NBR_INCOMPLETE_SCHAIN: "incomplete supply chain",
    NBR_BLOCKED_SCHAIN_NODE: "blocked supply chain node",
    NBR_NO_ELIGIBLE: "no eligible line item",
    NBR_NO_BUDGET: "no budget left",
    NBR_BELOW_FLOOR: "our price is below the floor",
    NBR_NO_CURRENCY: "no currency we can bid in",
    NBR_CONSENT: "consent does not allow it",
    NBR_BLOCKED: "our ads are blocked by the request",
    NBR_FORMAT: "no creative of an offered format or size",
    NBR_NOT_INTERESTED: "not worth a bid",
    NBR_KILL_SWITCH: "bidding is switched off",
    NBR_NO_DEAL: "no deal we may bid on",
    NBR_FREQUENCY_CAP: "frequency cap met",
    NBR_NOT_READY: "not ready",
    NBR_HELD_OUT: "held out by an experiment",
    NBR_VIEWABILITY: "placement seldom in view",
    NBR_UNLISTED_SELLER: "seller not in the exchange's sellers.json",
    NBR_DUPLICATE: "the same impression comes cheaper by another path",
    NBR_NOT_WORTH: "such requests are not worth processing",
}

# --- loss reasons --------------------------------------------------------------------------------------------------
LOSS_WON = 0
LOSS_INTERNAL = 1
LOSS_EXPIRED = 2
LOSS_INVALID_RESPONSE = 3
LOSS_DEAL_ID = 4
LOSS_AUCTION_ID = 5
LOSS_ADOMAIN = 6
LOSS_NO_MARKUP = 7
LOSS_NO_CRID = 8
LOSS_NO_PRICE = 9
LOSS_MINIMUM_APPROVAL = 10
LOSS_BELOW_FLOOR = 100
LOSS_BELOW_DEAL_FLOOR = 101
LOSS_OUTBID = 102
LOSS_TO_DEAL = 103
LOSS_SEAT_BLOCKED = 104
LOSS_CREATIVE = 200

LOSS_TEXT: dict[int, str] = {
    LOSS_WON: "bid won",
    LOSS_INTERNAL: "internal error",
    LOSS_EXPIRED: "impression opportunity expired",
    LOSS_INVALID_RESPONSE: "invalid bid response",
    LOSS_DEAL_ID: "invalid deal id",
    LOSS_AUCTION_ID: "invalid auction id",
    LOSS_ADOMAIN: "invalid advertiser domain",
    LOSS_NO_MARKUP: "missing markup",
    LOSS_NO_CRID: "missing creative id",
    LOSS_NO_PRICE: "missing bid price",
    LOSS_MINIMUM_APPROVAL: "missing minimum creative approval data",
    LOSS_BELOW_FLOOR: "below the auction floor",
    LOSS_BELOW_DEAL_FLOOR: "below the deal floor",
    LOSS_OUTBID: "lost to a higher bid",
    LOSS_TO_DEAL: "lost to a bid for a deal",
    LOSS_SEAT_BLOCKED: "buyer seat blocked",
    200: "creative filtered: general",
    201: "creative filtered: pending processing by the exchange",
    202: "creative filtered: disapproved by the exchange",
    203: "creative filtered: size not allowed",
    204: "creative filtered: incorrect format",
    205: "creative filtered: advertiser exclusions",
    206: "creative filtered: app bundle exclusions",
    207: "creative filtered: not secure",
    208: "creative filtered: language exclusions",
    209: "creative filtered: category exclusions",
    210: "creative filtered: attribute exclusions",
    211: "creative filtered: ad type exclusions",
    212: "creative filtered: animation too long",
    213: "creative filtered: not allowed in PMP deal",
    214: "creative filtered: device/technology exclusions",
    215: "creative filtered: other",
}

# --- bid.mtype -----------------------------------------------------------------------------------------------------
MTYPE_BANNER = 1
MTYPE_VIDEO = 2
MTYPE_AUDIO = 3
MTYPE_NATIVE = 4

# --- imp auction types (`at`) --------------------------------------------------------------------------------------
AT_FIRST_PRICE = 1
AT_SECOND_PRICE = 2
AT_FIXED_PRICE = 3  # deals: the floor is the agreed price


def nbr_text(nbr: int) -> str:
    """What a no-bid reason means, in a few words."""
    return NBR_TEXT.get(nbr, f"exchange's own reason {nbr}" if nbr >= 500 else f"reason {nbr}")


def loss_text(reason: int) -> str:
    """What a loss reason means, in a few words."""
    return LOSS_TEXT.get(reason, f"exchange's own reason {reason}" if reason >= 1000 else f"reason {reason}")
