"""Identity sync: both directions, the person found by the ids that requests carry, and nothing kept without consent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsp.audience.identity import KIND_BUYERUID, KIND_IFA, KIND_USER_ID, identity_key, load_peppers
from dsp.audience.lmdb_store import open_profiles
from dsp.audience.load import write_people
from dsp.audience.lock import profiles_lock
from dsp.audience.match import OURS, QUEUE, MatchTable
from dsp.audience.profile import PROFILE, PROFILE_BYTES
from dsp.base.config import Config
from dsp.ledger.match import COOKIE, Matcher, filled, read_cookie

US = {"country": "USA"}
ADDRESS = "https://ssp.example/sync?dsp=9&id={uid}&gdpr={gdpr}&c={gdpr_consent}"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=str(tmp_path))


@pytest.fixture
def matcher(config: Config) -> Matcher:
    made = Matcher(config)
    exchanges = [{"name": "alpha", "id": 1, "match_url": ADDRESS}, {"name": "beta", "id": 2}]
    made.attach(SimpleNamespace(meta={"exchanges": exchanges}))  # type: ignore[arg-type]
    return made


def person_of(config: Config, *ids: tuple[int, str, int]) -> list[int]:
    """The person number behind each (kind, id, scope), 0 for nobody."""
    pepper = load_peppers(config.path("secrets", "pepper.json")).current
    keys = b"".join(identity_key(kind, text, pepper, scope) for kind, text, scope in ids)
    n = len(ids)
    out, found = np.zeros((n, PROFILE_BYTES), np.uint8), np.zeros(n, np.int64)
    store = open_profiles(config)
    try:
        store.read(np.frombuffer(keys, np.uint8).reshape(n, 16), np.ones(n, np.int64), out, found, 1)
    finally:
        store.close()
    return [int(p) if f else 0 for p, f in zip(out.view(PROFILE)["person"][:, 0], found, strict=True)]


def test_an_exchanges_id_and_our_cookie_lead_to_one_person(config: Config, matcher: Matcher) -> None:
    first = matcher.answer("alpha", {"uid": "their-7", **US}, "")
    assert first is not None
    assert first.result == "matched"
    cookie = first.cookie.partition(";")[0].partition("=")[2]
    assert {"Secure", "HttpOnly", "SameSite=None"} <= {part.strip() for part in first.cookie.split(";")}
    again = matcher.answer("beta", {"uid": "other-9", **US}, f"x=1; {COOKIE}={cookie}")
    assert again is not None
    assert again.cookie == ""  # it has one
    assert matcher.table.flush() == 2
    ids = [(KIND_USER_ID, "their-7", 1), (KIND_BUYERUID, cookie, 1), (KIND_BUYERUID, cookie, OURS)]
    people = person_of(config, *ids, (KIND_USER_ID, "other-9", 2), (KIND_USER_ID, "their-7", 2))
    assert people[0] > 0
    assert people[:4] == [people[0]] * 4
    assert people[4] == 0  # another exchange's id of the same text is somebody else


def test_a_person_who_is_known_keeps_what_is_known(config: Config) -> None:
    pepper = load_peppers(config.path("secrets", "pepper.json")).current
    record = np.zeros(1, PROFILE)
    record["income_band"] = 3
    cookie = "c" * 22
    write_people(
        config.root,
        record,
        [[identity_key(KIND_BUYERUID, cookie, pepper, OURS), identity_key(KIND_IFA, "a-1", pepper)]],
    )
    table = MatchTable(config)
    assert table.add(1, cookie, "their-7")
    assert table.flush() == 1
    same = person_of(config, (KIND_IFA, "a-1", 0), (KIND_USER_ID, "their-7", 1))
    assert same[0] == same[1] > 0
    store = open_profiles(config)
    out, found = np.zeros((1, PROFILE_BYTES), np.uint8), np.zeros(1, np.int64)
    key = np.frombuffer(identity_key(KIND_USER_ID, "their-7", pepper, 1), np.uint8).reshape(1, 16)
    store.read(key, np.ones(1, np.int64), out, found, 1)
    store.close()
    assert out.view(PROFILE)["income_band"][0, 0] == 3


@pytest.mark.parametrize(
    "signals",
    [
        {},  # no place, no signal: no law can be ruled out
        {"gdpr": "1"},
        {"gdpr": "1", "gdpr_consent": "garbage", "country": "USA"},
        {"country": "DEU"},
        {"country": "CHN"},
        {"us_privacy": "1YYN", **US},
        {"gpp": "garbage", "gpp_sid": "7", **US},
    ],
)
def test_without_consent_nothing_is_set_kept_or_passed_on(matcher: Matcher, signals: dict[str, str]) -> None:
    for query in ({"uid": "their-7", **signals}, signals):
        done = matcher.answer("alpha", query, "")
        assert done == ("", "", "no_consent")
    assert len(matcher.table) == 0


def test_a_call_without_their_id_goes_on_to_the_exchange_with_ours(matcher: Matcher) -> None:
    done = matcher.answer("alpha", {"gdpr": "0", "country": "DEU", "gdpr_consent": "a&b"}, "")
    assert done is not None
    cookie = done.cookie.partition(";")[0].partition("=")[2]
    assert done.location == f"https://ssp.example/sync?dsp=9&id={cookie}&gdpr=0&c=a%26b"
    nowhere = matcher.answer("beta", US, "")
    assert nowhere is not None
    assert nowhere.location == ""  # it has no address, and a call can't name one


def test_ids_of_nobody_and_made_up_cookies_are_not_taken(matcher: Matcher) -> None:
    for uid in ("0", "unknown", "00000000-0000-0000-0000-000000000000", "x" * 300):
        done = matcher.answer("alpha", {"uid": uid, **US}, "")
        assert done is not None
        assert done.result == "bad_id"
    assert read_cookie(f"{COOKIE}=<script>") == ""
    assert read_cookie(f"a=b; {COOKIE}={'k' * 22}") == "k" * 22
    assert matcher.answer("nobody", {"uid": "1"}, "") is None
    assert filled("https://x.example/{uid}", "c", {"uid": "{gdpr}"}) == "https://x.example/c"


def test_a_load_goes_first_and_the_queue_has_an_end(config: Config) -> None:
    table = MatchTable(config)
    assert table.add(1, "c" * 22, "their-7")
    with profiles_lock(config.root, wait=True):
        assert table.flush() == 0
    assert table.flush() == 1
    for k in range(QUEUE):
        assert table.add(1, f"c{k:021d}", f"t{k}x")
    assert not table.add(1, "d" * 22, "one-more")
    assert table.dropped == 1
