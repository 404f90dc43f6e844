"""What a data team would know of the synthetic people: profile records, and their loading into the audience store.

A profile is a partial, noisy view of the hidden truth: bands slip by one, scores carry noise and gaps, segments miss
some of their people and hold some wrong ones. Made in blocks of 65,536 people, each from its own generator, so any
block is reproduced alone and a million people need no more memory than one block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from dsp.audience.identity import KIND_BUYERUID, KIND_IFA, identity_key_many, load_pepper
from dsp.audience.load import people_writer
from dsp.audience.profile import (
    CONSENT_FINANCIAL,
    CONSENT_PROFILING,
    LIFECYCLE,
    MAX_SEGMENTS,
    PROFILE,
    PROFILE_VERSION,
)
from dsp.base.config import Config
from dsp.catalog.current import current_path
from dsp.catalog.layout import PRODUCTS
from dsp.catalog.snapshot import Snapshot
from dsp.market.devices import DEVICES
from dsp.market.people import AFFINITIES, AGE_EDGES, INCOME_EDGES, REFUSED, People

BLOCK = 1 << 16
NEVER = 65535

# Segment numbers of the example world, by name; the example catalog targets these.
SEGMENTS: dict[str, int] = {
    **{f"in-market:{product}": 101 + i for i, product in enumerate(PRODUCTS)},
    **{f"customer:{product}": 111 + i for i, product in enumerate(PRODUCTS)},
    **{f"abandoned:{product}": 121 + i for i, product in enumerate(PRODUCTS)},
    **{f"affinity:{topic}": 131 + i for i, topic in enumerate(AFFINITIES)},
    "high-net-worth": 141,
    "prime": 142,
    "near-prime": 143,
    "subprime": 144,
    "student": 145,
    "retired": 146,
}

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


def profile_blocks(people: People, day: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]]:
    """(person numbers, PROFILE records) of the known people, a block at a time; ``day`` is days since 1970-01-01."""
    for start in range(0, people.n, BLOCK):
        persons = np.arange(start, min(start + BLOCK, people.n))
        records = _observe(people, persons, day)
        known = people.known[persons]
        yield persons[known], records[known]


def write_profiles(config: Config, people: People, exchanges: Mapping[str, int] | None = None) -> int:
    """Load the known people into ``config``'s audience store; how many. About 10 µs and 130 bytes of disk per key.

    ``exchanges`` maps names to their stable numbers, which buyer uids are scoped by; the published snapshot's when not
    given. Raises `StoreError`.
    """
    if exchanges is None:
        path = current_path(config)
        exchanges = {x["name"]: x["id"] for x in Snapshot.load(path).meta["exchanges"]} if path is not None else {}
    written = 0
    with people_writer(config.root) as writer:
        for records, keys in keyed_profiles(config, people, exchanges):
            writer.write(records, keys)
            written += len(records)
    return written


def keyed_profiles(
    config: Config, people: People, exchanges: Mapping[str, int]
) -> Iterator[tuple[npt.NDArray[np.void], U8]]:
    """The known people as (PROFILE[n], identity keys uint8[n, k, 16]), a block at a time."""
    pepper = load_pepper(config.path("secrets", "pepper.json"))
    for persons, records in profile_blocks(people, int(time.time()) // 86_400):
        keys = np.zeros((len(persons), len(exchanges) + 1, 16), np.uint8)
        for k, (name, number) in enumerate(exchanges.items()):
            keys[:, k] = identity_key_many(KIND_BUYERUID, people.buyeruids(persons, name), pepper, number)
        keys[:, -1] = identity_key_many(KIND_IFA, people.ifas(persons), pepper)
        keys[~_HAS_APPS[people.device[persons]], -1] = 0
        yield records, keys


_HAS_APPS = np.array([device.has_apps for device in DEVICES])


def _observe(people: People, persons: npt.NDArray[np.int64], day: int) -> npt.NDArray[np.void]:
    """The records of one block of persons."""
    n = len(persons)
    rng = np.random.default_rng([people.seed, 0x0B5E, int(persons[0])])
    intent, credit, wealth = people.intent[persons], people.credit[persons], people.wealth[persons]
    out = np.zeros(n, PROFILE)
    out["version"] = PROFILE_VERSION
    agreed = people.privacy[persons] != REFUSED
    out["consent"] = np.where(agreed, CONSENT_PROFILING | CONSENT_FINANCIAL, 0)
    age = np.searchsorted(AGE_EDGES, people.age[persons], side="right") + 1
    out["age_band"] = _slipped(rng, age, wrong=0.08, unknown=0.08)
    income = np.searchsorted(np.log(INCOME_EDGES), wealth, side="right") + 1
    out["income_band"] = _slipped(rng, income, wrong=0.2, unknown=0.12)
    out["gender"] = np.where(rng.random(n) < 0.1, 0, people.gender[persons])
    out["owned"] = people.owned[persons] & _random_bits(rng, n, len(PRODUCTS), 0.85)
    out["lifecycle"] = _lifecycle(rng, people, persons)
    out["intent"] = _noisy(rng, intent, noise=0.1, unknown=0.15)
    out["risk"] = _risk(rng, credit, wealth, people.place[persons])
    rank = people.rank_of_person(persons)
    activity = 1 - np.log1p(rank) / np.log1p(people.n)
    out["activity"] = _noisy(rng, activity, noise=0.05, unknown=0.0)
    out["recency_days"] = np.minimum(rng.exponential(2 + 25 * (1 - activity)), 254).astype(np.uint8)
    out["hours"] = _active_hours(people.peak_hour[persons])
    out["affinity"] = _noisy(rng, people.affinity[persons], noise=0.12, unknown=0.15)
    out["home_region"] = people.place[persons] + 1
    _fill_segments(rng, out, people, persons, day)
    out["person"] = persons + 1  # 0 would read as "nobody"
    out["updated_d"] = day
    return out


def _slipped(rng: np.random.Generator, band: npt.NDArray[np.intp], wrong: float, unknown: float) -> U8:
    """Bands 1..6 with a share off by one and a share unknown (0)."""
    u = rng.random(len(band))
    step = np.where(rng.random(len(band)) < 0.5, -1, 1)
    slipped = np.clip(np.where(u < wrong, band + step, band), 1, 6)
    return np.where(u > 1 - unknown, 0, slipped).astype(np.uint8)


def _noisy(rng: np.random.Generator, truth: npt.NDArray[np.floating], noise: float, unknown: float) -> U8:
    """Truth in 0..1 as 0..254 with Gaussian noise; a share unknown (255)."""
    score = np.clip(truth + rng.normal(0, noise, truth.shape), 0, 1) * 254
    return np.where(rng.random(truth.shape) < unknown, 255, np.rint(score)).astype(np.uint8)


def _random_bits(rng: np.random.Generator, n: int, width: int, share: float) -> U8:
    return ((rng.random((n, width)) < share) << np.arange(width)).sum(1).astype(np.uint8)


def _risk(rng: np.random.Generator, credit: npt.NDArray[np.float32], wealth: npt.NDArray[np.float32], place: U8) -> U8:
    """The six risk factors, 0 best .. 254 worst: each sees creditworthiness through its own noise; [n, 6]."""
    badness = -credit[:, None].astype(np.float64)
    weight = np.array([0.35, 1.0, 0.5, 0.4, 0.0, 0.8])
    noise = np.array([0.9, 0.5, 0.8, 0.9, 0.0, 0.5])
    latent = badness * weight + rng.normal(0, 1, (len(credit), 6)) * noise
    latent[:, 4] = np.sin(place * 12.9898) * 1.2  # region cluster: a fact of the place, nothing about the person
    latent[:, 5] -= 0.6 * wealth
    score = np.rint(254 / (1 + np.exp(-1.2 * latent)))
    return np.where(rng.random(score.shape) < 0.08, 255, score).astype(np.uint8)


def _lifecycle(rng: np.random.Generator, people: People, persons: npt.NDArray[np.int64]) -> U8:
    """Where each person stands with us per product: mostly nowhere; intent leaves registrations and applications."""
    stage = {name: i for i, name in enumerate(LIFECYCLE)}
    intent = people.intent[persons].astype(np.float64)
    bad = 1 / (1 + np.exp(1.5 * people.credit[persons, None] + 1.0))
    held = (people.owned[persons, None] >> np.arange(len(PRODUCTS))) & 1
    u, v = rng.random(intent.shape), rng.random(intent.shape)
    out = np.zeros(intent.shape, np.uint8)
    out[u < 0.10 * intent] = stage["registered"]
    tried = u > 1 - 0.06 * intent
    out[tried] = np.where(v < bad, stage["rejected"], stage["applied"])[tried]
    ours = (held == 1) & (rng.random(intent.shape) < 0.12)
    out[ours] = np.where(v < 0.3 * bad, stage["delinquent"], stage["existing_customer"])[ours]
    return out


def _active_hours(peak: U8) -> U8:
    """A 24-bit mask around the peak hour (five hours) as three bytes; uint8[n, 3]."""
    hours = (peak[:, None] + np.arange(-2, 3)) % 24
    mask = (1 << hours.astype(np.int64)).sum(1)
    return (mask[:, None] >> np.array([0, 8, 16]) & 255).astype(np.uint8)


def _fill_segments(
    rng: np.random.Generator, out: npt.NDArray[np.void], people: People, persons: npt.NDArray[np.int64], day: int
) -> None:
    """Memberships into ``out``: ascending numbers, the rest 0; each membership missed or wrong now and then."""
    numbers = np.array(sorted(SEGMENTS.values()), np.uint16)
    member = np.zeros((len(persons), len(numbers)), bool)
    column = {number: i for i, number in enumerate(numbers.tolist())}
    intent, credit = people.intent[persons], people.credit[persons]
    age, wealth = people.age[persons], people.wealth[persons]
    for i, product in enumerate(PRODUCTS):
        member[:, column[SEGMENTS[f"in-market:{product}"]]] = intent[:, i] > 0.5
        member[:, column[SEGMENTS[f"customer:{product}"]]] = out["lifecycle"][:, i] >= LIFECYCLE.index("delinquent")
        member[:, column[SEGMENTS[f"abandoned:{product}"]]] = out["lifecycle"][:, i] == LIFECYCLE.index("registered")
    for i, topic in enumerate(AFFINITIES):
        member[:, column[SEGMENTS[f"affinity:{topic}"]]] = people.affinity[persons, i] > 0.55
    member[:, column[SEGMENTS["high-net-worth"]]] = wealth > 0.9
    member[:, column[SEGMENTS["prime"]]] = credit > 0.4
    member[:, column[SEGMENTS["near-prime"]]] = (credit <= 0.4) & (credit > -0.6)
    member[:, column[SEGMENTS["subprime"]]] = credit <= -0.6
    member[:, column[SEGMENTS["student"]]] = age < 24
    member[:, column[SEGMENTS["retired"]]] = age >= 66
    u = rng.random(member.shape)
    member = (member & (u > 0.1)) | (u > 0.997)
    # The first MAX_SEGMENTS members of each row, in ascending order: a stable sort brings members to the front.
    order = np.argsort(~member, axis=1, kind="stable")[:, :MAX_SEGMENTS]
    count = np.minimum(member.sum(1), MAX_SEGMENTS)
    kept = np.arange(MAX_SEGMENTS) < count[:, None]
    out["n_segments"] = count
    out["segments"] = np.where(kept, numbers[order], 0)
    expiry = np.where(rng.random(kept.shape) < 0.3, NEVER, day + rng.integers(7, 90, kept.shape))
    out["segment_expiry_d"] = np.where(kept, expiry, 0)
