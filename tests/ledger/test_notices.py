import pytest
from ledger_world import START_MS, World, simple_plan

from dsp.base.token import TOKEN_TEXT_BYTES, Signer
from dsp.ledger.notices import CONVERSION_MAX_AGE_S, MONEY_MAX_AGE_S, RefusedError, parse_query, read_notice
from dsp.ledger.ticket import UNFILLED, charge_micros
from dsp.log.outcomes import APPROVED, LOSS

BAD_PRICES = ("-1", "NaN", "Infinity", "-0.0001", "abc", "1e9", "1,5", "9" * 40, "1e400", "0x10", "٣")


@pytest.fixture
def ready(world: World) -> World:
    world.adopt(simple_plan())
    return world


@pytest.mark.parametrize("price", BAD_PRICES)
@pytest.mark.parametrize("path", ["n", "b"])
def test_a_price_that_is_none_is_400_and_changes_nothing(ready, path, price):
    expected = 204 if price == "٣" else 400  # Python reads other scripts' digits; harmless: it is a real number
    assert ready.ledger.notice(path, ready.token(), {"p": price}) == expected
    if expected == 400:
        assert ready.books.balances() == {}
        assert ready.books.outcomes == []


@pytest.mark.parametrize("price", ["", "${AUCTION_PRICE}", None])
def test_a_missing_price_is_unfilled(ready, price):
    query = {} if price is None else {"p": price}
    notice = read_notice(ready.signer, "b", ready.token().decode(), query, START_MS)
    assert notice.price_micros == UNFILLED


@pytest.mark.parametrize(
    "token",
    ["", "x", "A" * TOKEN_TEXT_BYTES, "é" * TOKEN_TEXT_BYTES, "A" * 100_000, "../../etc/passwd", "%00" * 10],
)
def test_what_is_no_token_is_403(ready, token):
    assert ready.ledger.notice("b", token, {"p": "5"}) == 403
    assert ready.books.balances() == {}


def test_every_changed_character_of_a_token_is_403(ready):
    token = ready.token()
    for i in range(0, len(token), 5):
        forged = token[:i] + (b"A" if token[i : i + 1] != b"A" else b"B") + token[i + 1 :]
        assert ready.ledger.notice("b", forged, {"p": "5"}) == 403
    assert ready.books.balances() == {}


def test_a_token_of_another_installation_is_403(ready):
    ready.signer = Signer({1: b"another secret, 16+"})
    foreign = ready.token()
    assert ready.ledger.notice("b", foreign, {"p": "5"}) == 403


def test_a_token_of_the_previous_key_is_still_good(ready):
    token = ready.token()
    ready.ledger.signer = Signer({1: b"k" * 32, 2: b"n" * 32})
    assert ready.ledger.notice("b", token, {"p": "5"}) == 204


def test_notices_expire_money_in_a_week_conversions_in_a_quarter(ready):
    token = ready.token()
    ready.clock.advance(MONEY_MAX_AGE_S + 1)
    assert ready.ledger.notice("b", token, {"p": "5"}) == 410
    assert ready.ledger.notice("p", token, {"e": "funded"}) == 204
    ready.clock.advance(CONVERSION_MAX_AGE_S)
    assert ready.ledger.notice("p", token, {"e": "defaulted"}) == 410
    assert ready.books.spend(1) == 0


def test_a_bid_of_the_future_is_refused(ready):
    assert ready.ledger.notice("b", ready.token(time_s=START_MS // 1000 + 3600), {"p": "5"}) == 400


def test_unknown_paths_and_stages_are_refused(ready):
    assert ready.ledger.notice("x", ready.token(), {}) == 404
    assert ready.ledger.notice("p", ready.token(), {}) == 400
    assert ready.ledger.notice("p", ready.token(), {"e": "married"}) == 400
    assert ready.ledger.notice("p", ready.token(), {"e": "approved", "v": "-5"}) == 400


def test_a_loss_keeps_its_reason_and_the_price_that_had_won(ready):
    token = ready.token().decode()
    notice = read_notice(ready.signer, "l", token, {"r": "102", "m": "11.5"}, START_MS)
    assert (notice.kind, notice.price_micros, notice.value_micros) == (LOSS, 11_500_000, 102_000_000)
    unfilled = read_notice(ready.signer, "l", token, {"r": "${AUCTION_LOSS}", "m": "${AUCTION_MIN_TO_WIN}"}, START_MS)
    assert (unfilled.price_micros, unfilled.value_micros) == (0, 0)
    odd = read_notice(ready.signer, "l", token, {"r": "-1", "m": "NaN"}, START_MS)
    assert (odd.price_micros, odd.value_micros) == (0, 0)


def test_a_conversion_keeps_its_amount(ready):
    notice = read_notice(ready.signer, "p", ready.token().decode(), {"e": "approved", "v": "12000.50"}, START_MS)
    assert (notice.kind, notice.value_micros) == (APPROVED, 12_000_500_000)


def test_queries_are_decoded_and_bounded():
    assert parse_query("p=1.5&c=USD&e=a%20b+c&empty=&flag") == {
        "p": "1.5",
        "c": "USD",
        "e": "a b c",
        "empty": "",
        "flag": "",
    }
    with pytest.raises(RefusedError) as refusal:
        parse_query("p=" + "1" * 3000)
    assert refusal.value.status == 414


@pytest.mark.parametrize(
    ("cpm_micros", "fx", "micros"),
    [(7_500_000, 1.0, 7500), (499, 1.0, 0), (500, 1.0, 1), (1_499, 1.0, 1), (10_000_000, 0.1234565, 1235)],
)
def test_charges_round_half_up(ready, cpm_micros, fx, micros):
    ticket = read_notice(ready.signer, "b", ready.token(fx=fx).decode(), {}, START_MS).ticket
    assert charge_micros(ticket, cpm_micros) == micros
