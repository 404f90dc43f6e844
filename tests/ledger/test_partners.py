"""Postbacks of measurement partners, by template."""

import math

import pytest
from ledger_world import World

from dsp.base.config import PartnerConfig
from dsp.ledger.notices import RefusedError
from dsp.ledger.partners import check_partners, landing_url, read_json, read_postback
from dsp.log.outcomes import APPLIED, FUNDED

PARTNER = PartnerConfig(
    name="adjust",
    click="clickid",
    event="event_name",
    applied=("loan_application",),
    funded=("loan_paid_out", "card_active"),
    value="revenue",
    currency="cur",
    id="transaction_id",
    secret="key",
    password="agreed",
)
RATES = {"USD": 1.0, "EUR": 1.25}
FEES = {8: 1.25}


@pytest.fixture
def world():
    world = World(":memory:")
    yield world
    world.books.close()


def read(world: World, query: dict[str, str], partner: PartnerConfig = PARTNER):
    return read_postback(world.signer, partner, query, world.clock.time_ms(), RATES, FEES)


def test_a_partners_words_become_a_conversion(world: World) -> None:
    token = world.token().decode()
    query = {"clickid": token, "event_name": "loan_paid_out", "revenue": "1000", "cur": "EUR", "key": "agreed"}
    notice = read(world, query | {"transaction_id": "t-17"})
    assert notice is not None
    assert (notice.kind, notice.value_micros, notice.external_id) == (FUNDED, 1_250_000_000, "t-17")
    plain = read(world, query | {"event_name": "loan_application", "revenue": "", "cur": ""})
    assert plain is not None
    assert (plain.kind, plain.value_micros) == (APPLIED, 0)


def test_value_in_the_accounts_currency_follows_the_bids_frozen_rate(world: World) -> None:
    """The bid was in dollars, the account is in euros: a thousand euros are a thousand euros."""
    token = world.token(fx=0.8).decode()
    query = {"clickid": token, "event_name": "loan_paid_out", "revenue": "1000", "key": "agreed"}
    euros, dollars = read(world, query | {"cur": "EUR"}), read(world, query | {"cur": "USD"})
    assert euros is not None
    assert dollars is not None
    assert euros.value_micros == 1_000_000_000
    assert math.isclose(dollars.value_micros, 800_000_000)
    unknown = read(world, query | {"cur": "XYZ"})
    assert unknown is not None
    assert unknown.value_micros == 0


def test_an_exchanges_fee_is_not_in_what_a_conversion_is_worth(world: World) -> None:
    token = world.token(fx=0.8 * 1.25, exchange=8).decode()
    query = {"clickid": token, "event_name": "loan_paid_out", "revenue": "1000", "key": "agreed"}
    dollars = read(world, query | {"cur": "USD"})
    assert dollars is not None
    assert math.isclose(dollars.value_micros, 800_000_000)


def test_events_without_a_name_in_the_template_are_ignored(world: World) -> None:
    assert read(world, {"event_name": "session", "key": "agreed"}) is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"key": "guessed"}, 403),
        ({"key": ""}, 403),
        ({"clickid": "forged"}, 403),
        ({"revenue": "-1"}, 400),
    ],
)
def test_wrong_postbacks_are_refused(world: World, change: dict[str, str], status: int) -> None:
    good = {"clickid": world.token().decode(), "event_name": "loan_paid_out", "revenue": "1", "key": "agreed"}
    with pytest.raises(RefusedError) as refusal:
        read(world, good | change)
    assert refusal.value.status == status


def test_json_bodies_are_flat_objects() -> None:
    assert read_json(b'{"a": 1, "b": "x", "c": null}') == {"a": "1", "b": "x"}
    with pytest.raises(RefusedError):
        read_json(b'{"a": [1]}')


def test_templates_that_cannot_work_are_told_at_the_start() -> None:
    check_partners([PARTNER])
    with pytest.raises(ValueError, match="install means two stages"):
        check_partners([PartnerConfig("x", registered=("install",), applied=("install",))])
    with pytest.raises(ValueError, match="needs a password"):
        check_partners([PartnerConfig("x", secret="key")])


def test_tracking_links_get_the_token_where_they_want_it() -> None:
    assert landing_url("https://t.example/x?c={CLICK_ID}&d=1", "TOK") == "https://t.example/x?c=TOK&d=1"
    assert landing_url("https://b.example/#f", "TOK") == "https://b.example/?dsp_click_id=TOK#f"
