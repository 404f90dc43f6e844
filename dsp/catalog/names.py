"""The words a catalog file uses for OpenRTB's numbers, and the rules that are named after them."""

from __future__ import annotations

from dsp.openrtb.columns import CHANNEL_APP, CHANNEL_DOOH, CHANNEL_SITE

# OpenRTB 2.6, list "device types"; 1 is the old "mobile or tablet", which some exchanges still send.
DEVICES: dict[str, tuple[int, ...]] = {
    "mobile": (1, 4, 5),
    "phone": (1, 4),
    "tablet": (1, 5),
    "desktop": (2,),
    "tv": (3, 7),
    "connected_tv": (3,),
    "connected_device": (6,),
    "set_top_box": (7,),
    "ooh": (8,),
}
# List "connection types".
CONNECTIONS: dict[str, tuple[int, ...]] = {
    "ethernet": (1,),
    "wifi": (2,),
    "cellular": (3, 4, 5, 6, 7),
    "2g": (4,),
    "3g": (5,),
    "4g": (6,),
    "5g": (7,),
}
CHANNELS: dict[str, int] = {"site": CHANNEL_SITE, "app": CHANNEL_APP, "dooh": CHANNEL_DOOH}
OSES = ("ios", "android", "windows", "macos", "linux", "other")
BROWSERS = ("chrome", "safari", "firefox", "edge", "other", "app")
AGE_BANDS: dict[str, int] = {"18-24": 1, "25-34": 2, "35-44": 3, "45-54": 4, "55-64": 5, "65+": 6}
INCOME_BANDS = (1, 2, 3, 4, 5, 6)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# OpenRTB video protocol -> version of the VAST document we write for it.
VAST_VERSIONS: dict[int, str] = {2: "2.0", 3: "3.0", 7: "4.0", 11: "4.1", 13: "4.2"}
SKIPPABLE_ATTR = 16

# Native data asset types (OpenRTB Native 1.2, 7.4) that have a field of their own in the file.
DATA_SPONSORED = 1
DATA_DESC = 2
DATA_CTA = 12
MAX_DATA_TYPE = 62  # they are kept as bits

CREDIT_PRODUCTS = ("loan", "credit_card")
CREDIT_COUNTRIES: dict[str, str] = {
    "USA": "Equal Credit Opportunity Act, 15 U.S.C. 1691 and Regulation B",
    "CAN": "Canadian Human Rights Act, section 5",
}
DEMOGRAPHICS = ("age", "gender", "marital", "parental", "postcode")  # what credit may not be targeted on there
