import pytest

from zproxy.config import Limits
from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.flood import CHATTER, WASTE, FloodGuard

LIMITS = Limits()
BUDGET = LIMITS.chatter


def test_a_quiet_peer_never_saves_more_than_the_budget() -> None:
    guard = FloodGuard(LIMITS)
    guard.earn(10)
    guard.spend(BUDGET, "frames")
    with pytest.raises(RemoteProtocolError, match="too many frames") as caught:
        guard.spend(1, "frames")
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_one_frame_of_chatter_per_read_may_go_on_for_ever() -> None:
    guard = FloodGuard(LIMITS)
    for _ in range(10 * BUDGET):
        guard.spend(CHATTER, "PING frames")
        guard.earn(1)


def test_a_stream_given_up_in_a_later_read_costs_nothing() -> None:
    guard = FloodGuard(LIMITS)
    for _ in range(10 * BUDGET):
        guard.earn(1)
        guard.spend(WASTE, "streams reset before their answer")
        guard.earn(1)


def test_streams_are_wasted_by_the_second_however_slowly_they_are_read() -> None:
    guard = FloodGuard(LIMITS)

    def waste() -> None:
        guard.earn(2)
        guard.waste("streams reset before their answer")

    for _ in range(LIMITS.wasted_streams):
        waste()
    for _ in range(10):
        guard.tick()
        for _ in range(LIMITS.wasted_streams_per_s):
            waste()
    with pytest.raises(RemoteProtocolError, match="too many streams reset before their answer"):
        waste()


def test_a_peer_that_was_good_for_long_saves_no_more_wasted_streams_than_at_first() -> None:
    guard = FloodGuard(LIMITS)
    for _ in range(100):
        guard.tick()
    assert guard.streams == LIMITS.wasted_streams


def test_streams_reset_in_the_read_that_opens_them_add_up() -> None:
    guard = FloodGuard(LIMITS)
    for _ in range(BUDGET - 1):
        guard.spend(WASTE, "streams reset before their answer")
        guard.earn(1)
    with pytest.raises(RemoteProtocolError):
        guard.spend(WASTE, "streams reset before their answer")
