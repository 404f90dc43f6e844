"""What a frequency cap may say: the words that catalog and counting share.

A cap is (kind, id, window, limit): at most ``limit`` billed impressions of one thing to one person within a window.
Windows slide; a flight's never ends.
"""

from __future__ import annotations

# The kinds of thing that are counted, in the order of a counted impression's ids.
KINDS = ("creative", "line_item", "campaign", "advertiser", "product")
(CREATIVE, LINE_ITEM, CAMPAIGN, ADVERTISER, PRODUCT) = range(5)

WINDOWS_S = {"minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "flight": 0}
FLIGHT = 0
MAX_CAP = 100  # as many impressions as are kept per person; a larger cap could not be counted

# A cap as a row of int64[m, CAP_WIDTH]
(K_KIND, K_ID, K_WINDOW_S, K_LIMIT) = range(4)
CAP_WIDTH = 4
