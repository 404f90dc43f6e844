"""Every named reason has a text, and its number is where OpenRTB wants it."""

from dsp.openrtb import codes


def test_every_nbr_has_a_text_and_a_legal_number() -> None:
    named = {value for name, value in vars(codes).items() if name.startswith("NBR_") and isinstance(value, int)}
    assert named == set(codes.NBR_TEXT)
    assert all(0 <= nbr <= 17 or nbr >= 500 for nbr in named)
    assert len(set(codes.NBR_TEXT.values())) == len(codes.NBR_TEXT)


def test_every_loss_reason_of_the_specification_has_a_text() -> None:
    assert set(codes.LOSS_TEXT) == {*range(11), *range(100, 105), *range(200, 216)}


def test_unknown_codes_are_named_by_number() -> None:
    assert codes.nbr_text(504) == "consent does not allow it"
    assert codes.nbr_text(777) == "exchange's own reason 777"
    assert codes.nbr_text(99) == "reason 99"
    assert codes.loss_text(102) == "lost to a higher bid"
    assert codes.loss_text(1234) == "exchange's own reason 1234"
