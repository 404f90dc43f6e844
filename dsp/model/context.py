"""The context columns of an imp, as the engine fills them and features read them: int64[n, CTX_WIDTH]."""

from __future__ import annotations

(
    CTX_PROFILE,  # row of the batch's profile table, -1 without a joined profile
    CTX_HOUR,  # hour of day at the person's place (utcoffset where known, else UTC)
    CTX_WEEKDAY,  # Monday 0
    CTX_DEVICETYPE,  # OpenRTB, 0 unknown
    CTX_OS,  # OSES index
    CTX_BROWSER,  # BROWSERS index
    CTX_CONNECTION,  # OpenRTB, 0 unknown
    CTX_CHANNEL,  # CHANNEL_*
    CTX_CATEGORY,  # IAB tier 1 number 1..26, 0 unknown
    CTX_MEDIA,  # the imp's offered media, bits
    CTX_W,  # of the creative's slot: first banner size, or the video player's
    CTX_H,
    CTX_POS,  # ad position, 0 unknown
    CTX_INSTL,
    CTX_FLOOR,  # CPM micros of USD
    CTX_AT,  # 1 first price, 2 second
    CTX_EXCHANGE,  # index
    CTX_HAS_DEAL,
    CTX_SITE,  # hash of domain or bundle
    CTX_COUNTRY,  # hash
    CTX_SPECIAL,  # 1 where the region's law forbids demographics for credit (design 7): mask for LIF_CREDIT
    CTX_DAY,  # days since 1970-01-01
) = range(22)
CTX_WIDTH = 24

OSES = ("unknown", "ios", "android", "windows", "macos", "linux", "other")
BROWSERS = ("unknown", "chrome", "safari", "firefox", "edge", "other", "app")

HEADS = ("click", "apply", "approve", "fund", "default")
