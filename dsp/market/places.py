"""Where the synthetic people live: countries, regions and cities with their share, time zone and rough position.

Names and codes are what exchanges send: ISO 3166-1 alpha-3 countries, ISO 3166-2 subdivisions without the country.
Time zones are fixed offsets from UTC in minutes (standard time): a simulated world needs no daylight saving.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """One city with what a request says about it."""

    country: str  # ISO 3166-1 alpha-3
    region: str  # ISO 3166-2 without the country
    city: str
    zip: str
    lat: float
    lon: float
    utcoffset: int  # minutes
    weight: float  # share of the country's people, relative
    wealth: float  # median income against the country's


class Country(NamedTuple):
    """What holds for everybody in a country."""

    code: str
    share: float  # of the world's people
    median_income_usd: float
    languages: tuple[str, ...]  # first is the usual one
    ip_prefixes: tuple[str, ...]
    carriers: tuple[str, ...]
    gdpr: bool


COUNTRIES: tuple[Country, ...] = (
    Country(
        "USA", 0.46, 56_000, ("en", "es"), ("73.92", "98.51", "174.195"), ("Verizon", "T-Mobile", "Comcast"), False
    ),
    Country("GBR", 0.16, 44_000, ("en",), ("81.96", "86.148", "90.220"), ("BT", "Vodafone", "O2"), True),
    Country("DEU", 0.16, 46_000, ("de", "en"), ("79.220", "87.148", "91.20"), ("Telekom", "Vodafone", "o2-de"), True),
    Country("CHN", 0.22, 19_000, ("zh",), ("36.112", "113.64", "223.104"), ("CMCC", "Unicom", "Telecom"), False),
)

PLACES: tuple[Place, ...] = (
    Place("USA", "CA", "Los Angeles", "90012", 34.05, -118.24, -480, 9.0, 1.12),
    Place("USA", "CA", "San Francisco", "94103", 37.77, -122.42, -480, 4.0, 1.55),
    Place("USA", "CA", "San Diego", "92101", 32.72, -117.16, -480, 3.0, 1.15),
    Place("USA", "NY", "New York", "10001", 40.71, -74.01, -300, 9.0, 1.30),
    Place("USA", "NY", "Buffalo", "14202", 42.89, -78.88, -300, 1.5, 0.82),
    Place("USA", "TX", "Houston", "77002", 29.76, -95.37, -360, 5.5, 0.98),
    Place("USA", "TX", "Dallas", "75201", 32.78, -96.80, -360, 4.5, 1.05),
    Place("USA", "TX", "Austin", "78701", 30.27, -97.74, -360, 2.5, 1.22),
    Place("USA", "FL", "Miami", "33130", 25.76, -80.19, -300, 4.5, 0.92),
    Place("USA", "FL", "Tampa", "33602", 27.95, -82.46, -300, 2.5, 0.90),
    Place("USA", "IL", "Chicago", "60601", 41.88, -87.63, -360, 5.0, 1.08),
    Place("USA", "WA", "Seattle", "98101", 47.61, -122.33, -480, 3.0, 1.42),
    Place("USA", "GA", "Atlanta", "30303", 33.75, -84.39, -300, 3.5, 1.00),
    Place("USA", "PA", "Philadelphia", "19107", 39.95, -75.17, -300, 3.5, 0.95),
    Place("USA", "OH", "Columbus", "43215", 39.96, -83.00, -300, 2.5, 0.90),
    Place("USA", "MA", "Boston", "02108", 42.36, -71.06, -300, 3.0, 1.32),
    Place("USA", "AZ", "Phoenix", "85003", 33.45, -112.07, -420, 3.0, 0.95),
    Place("USA", "CO", "Denver", "80202", 39.74, -104.99, -420, 2.5, 1.12),
    Place("USA", "NC", "Charlotte", "28202", 35.23, -80.84, -300, 2.5, 0.98),
    Place("USA", "MI", "Detroit", "48226", 42.33, -83.05, -300, 2.5, 0.78),
    Place("GBR", "ENG", "London", "EC1A", 51.51, -0.13, 0, 9.0, 1.35),
    Place("GBR", "ENG", "Manchester", "M1", 53.48, -2.24, 0, 3.0, 0.92),
    Place("GBR", "ENG", "Birmingham", "B1", 52.48, -1.90, 0, 3.0, 0.85),
    Place("GBR", "ENG", "Leeds", "LS1", 53.80, -1.55, 0, 2.0, 0.90),
    Place("GBR", "SCT", "Glasgow", "G1", 55.86, -4.25, 0, 1.6, 0.88),
    Place("GBR", "SCT", "Edinburgh", "EH1", 55.95, -3.19, 0, 1.2, 1.10),
    Place("GBR", "WLS", "Cardiff", "CF10", 51.48, -3.18, 0, 1.0, 0.86),
    Place("DEU", "BE", "Berlin", "10115", 52.52, 13.41, 60, 4.0, 0.92),
    Place("DEU", "BY", "Munich", "80331", 48.14, 11.58, 60, 3.5, 1.25),
    Place("DEU", "HH", "Hamburg", "20095", 53.55, 9.99, 60, 2.5, 1.08),
    Place("DEU", "NW", "Cologne", "50667", 50.94, 6.96, 60, 3.0, 0.98),
    Place("DEU", "NW", "Dortmund", "44135", 51.51, 7.47, 60, 2.0, 0.82),
    Place("DEU", "HE", "Frankfurt", "60311", 50.11, 8.68, 60, 2.5, 1.20),
    Place("DEU", "BW", "Stuttgart", "70173", 48.78, 9.18, 60, 2.2, 1.18),
    Place("DEU", "SN", "Leipzig", "04109", 51.34, 12.37, 60, 1.5, 0.80),
    Place("CHN", "GD", "Shenzhen", "518000", 22.54, 114.06, 480, 6.0, 1.45),
    Place("CHN", "GD", "Guangzhou", "510000", 23.13, 113.26, 480, 5.0, 1.20),
    Place("CHN", "BJ", "Beijing", "100000", 39.90, 116.41, 480, 6.0, 1.50),
    Place("CHN", "SH", "Shanghai", "200000", 31.23, 121.47, 480, 6.5, 1.55),
    Place("CHN", "ZJ", "Hangzhou", "310000", 30.27, 120.16, 480, 3.5, 1.25),
    Place("CHN", "SC", "Chengdu", "610000", 30.57, 104.07, 480, 4.0, 0.90),
    Place("CHN", "HB", "Wuhan", "430000", 30.59, 114.31, 480, 3.0, 0.85),
    Place("CHN", "SN", "Xi'an", "710000", 34.34, 108.94, 480, 2.5, 0.75),
)

COUNTRY_INDEX: dict[str, int] = {country.code: i for i, country in enumerate(COUNTRIES)}
PLACE_COUNTRY: tuple[int, ...] = tuple(COUNTRY_INDEX[place.country] for place in PLACES)
