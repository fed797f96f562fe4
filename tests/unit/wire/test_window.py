from hypothesis import given
from hypothesis import strategies as st

from zproxy.wire.window import ReceiveWindow


def test_credit_is_announced_a_quarter_window_at_a_time() -> None:
    window = ReceiveWindow(1000)
    window.available -= 600
    assert window.give(249) == 0
    assert window.give(1) == 250
    assert window.give(350) == 350
    assert window.available == 1000


def test_nothing_is_never_announced() -> None:
    assert ReceiveWindow(1).give(0) == 0


@given(st.integers(1, 10_000), st.lists(st.integers(0, 500)))
def test_a_window_that_is_drained_always_opens_again(size: int, steps: list[int]) -> None:
    window = ReceiveWindow(size)
    taken = announced = 0
    for wanted in steps:
        step = min(wanted, window.available)
        window.available -= step
        taken += step
        announced += window.give(step)
        assert window.available == size - taken + announced
        assert window.available + window.owed == size
        assert window.available > size * 3 // 4 - 1, "a peer whose bytes are all taken never waits"


def test_a_smaller_window_may_be_overdrawn_until_bytes_come_back() -> None:
    window = ReceiveWindow(1000)
    window.available -= 900
    window.resize(-800, 200)
    assert window.available == -700
    assert window.give(50) == 50
    assert window.give(49) == 0
