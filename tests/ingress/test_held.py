"""Refusals are sent once, in turn, and never faster than decisions allow."""

from hypothesis import given
from hypothesis import strategies as st

from dsp.ingress.held import PART, Held

MOST = 50


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 128)), max_size=30))
def test_refusals_keep_their_order_and_their_pace(rounds: list[tuple[int, int]]) -> None:
    sent: list[int] = []

    def refuse(caller: int) -> bool:
        sent.append(caller)
        return True

    held, came = Held(refuse, MOST), 0
    for new, decided in rounds:
        held.add(range(came, came + new))
        came += new
        assert len(held) <= MOST  # what exceeds it was sent at once
        before = len(sent)
        held.decided(decided)
        assert len(sent) - before <= (-(-decided // PART) if decided >= PART else decided)
    held.let_go()
    assert sent == list(range(came))


def test_what_batches_leave_of_a_refusal_is_not_lost() -> None:
    sent: list[int] = []
    held = Held(lambda caller: not sent.append(caller), 1000)  # type: ignore[func-returns-value]
    held.add(range(100))
    for _ in range(PART):
        held.decided(PART + 1)
    assert len(sent) == PART + 1


def test_callers_who_have_gone_cost_nothing() -> None:
    asked: list[int] = []

    def refuse(caller: int) -> bool:
        asked.append(caller)
        return caller >= 10

    held = Held(refuse, MOST)
    held.add(range(20))
    held.decided(PART)
    assert asked == list(range(11))  # ten had gone, one was told
