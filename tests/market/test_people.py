"""The population: reproducible, plausible, and only partly visible."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from dsp.audience.profile import MAX_SEGMENTS, PROFILE_VERSION
from dsp.market.people import ALLOWED, LIMITED, REFUSED, Mix, People
from dsp.market.places import COUNTRIES, COUNTRY_INDEX
from dsp.market.profiles import SEGMENTS, profile_blocks


@pytest.fixture(scope="module")
def people() -> People:
    return People.generate(70_000, seed=5)


def test_same_seed_makes_the_same_people_and_another_seed_others() -> None:
    a, b, c = (People.generate(500, seed) for seed in (1, 1, 2))
    assert np.array_equal(a.intent, b.intent)
    assert np.array_equal(a.income_usd, b.income_usd)
    assert a.ifa(7) == b.ifa(7)
    assert not np.array_equal(a.intent, c.intent)
    assert a.ifa(7) != c.ifa(7)


def test_countries_have_their_share(people: People) -> None:
    share = np.bincount(people.country, minlength=len(COUNTRIES)) / people.n
    assert share == pytest.approx([country.share for country in COUNTRIES], abs=0.01)


def test_incomes_follow_country_and_place(people: People) -> None:
    median = [np.median(people.income_usd[people.country == i]) for i in range(len(COUNTRIES))]
    assert median[COUNTRY_INDEX["CHN"]] < 0.6 * median[COUNTRY_INDEX["USA"]]
    assert all(0.6 < m / c.median_income_usd < 1.7 for m, c in zip(median, COUNTRIES, strict=True))


def test_privacy_choices_have_the_shares_of_the_mix() -> None:
    people = People.generate(50_000, 3, Mix(known=0.5, refused=0.2, limited=0.1))
    assert np.mean(people.known) == pytest.approx(0.5, abs=0.02)
    assert np.mean(people.privacy == LIMITED) == pytest.approx(0.1, abs=0.02)
    gdpr = np.array([c.gdpr for c in COUNTRIES])[people.country]
    assert np.mean(people.privacy[gdpr] == REFUSED) == pytest.approx(0.4, abs=0.03)
    assert np.mean(people.privacy[~gdpr] == REFUSED) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 1000, 4096])
def test_ranks_are_a_permutation_of_the_people(n: int) -> None:
    people = People.generate(n, 11)
    persons = np.array([people.person_of_rank(rank) for rank in range(n)])
    assert sorted(persons.tolist()) == list(range(n))
    assert people.rank_of_person(persons).tolist() == list(range(n))


def test_identifiers_are_well_formed_and_unique(people: People) -> None:
    ifas = {people.ifa(person) for person in range(2000)}
    assert len(ifas) == 2000
    assert all(str(uuid.UUID(ifa)) == ifa for ifa in ifas)
    uids = {people.buyeruid(person, exchange) for person in range(2000) for exchange in ("alpha", "beta")}
    assert len(uids) == 4000


def test_profiles_are_valid_records_of_known_people(people: People) -> None:
    seen = 0
    for persons, records in profile_blocks(people, day=20_000):
        seen += len(persons)
        assert people.known[persons].all()
        assert (records["version"] == PROFILE_VERSION).all()
        assert (records["person"] == persons + 1).all()
        assert (records["age_band"] <= 6).all()
        assert (records["income_band"] <= 6).all()
        assert (records["lifecycle"] < 8).all()
        assert (records["n_segments"] <= MAX_SEGMENTS).all()
        held = np.arange(MAX_SEGMENTS) < records["n_segments"][:, None]
        assert set(np.unique(records["segments"][held])) <= set(SEGMENTS.values())
        assert (records["segments"][~held] == 0).all()
        ascending = np.diff(records["segments"].astype(int), axis=1) > 0
        assert (ascending | ~held[:, 1:]).all()
        assert ((records["consent"] == 0) == (people.privacy[persons] == REFUSED)).all()
    assert seen == people.known.sum()


def test_profiles_see_the_truth_only_through_noise(people: People) -> None:
    persons, records = next(iter(profile_blocks(people, day=20_000)))
    for product in range(5):
        known = records["intent"][:, product] != 255
        assert 0.7 < known.mean() < 0.95
        seen, true = records["intent"][known, product] / 254, people.intent[persons[known], product]
        assert 0.8 < np.corrcoef(seen, true)[0, 1] < 0.98
    lenders = records["risk"][:, 1] != 255
    correlation = np.corrcoef(records["risk"][lenders, 1], people.credit[persons[lenders]])[0, 1]
    assert -0.95 < correlation < -0.6  # 254 is worst


def test_profiles_of_a_block_do_not_depend_on_the_blocks_before() -> None:
    people = People.generate(70_000, 5)
    first = [records.copy() for _, records in profile_blocks(people, 20_000)]
    again = [records for _, records in profile_blocks(people, 20_000)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_most_people_allow_use(people: People) -> None:
    assert np.mean(people.privacy == ALLOWED) > 0.9
