import pytest

from zproxy.wire.errors import ErrorCode, RemoteProtocolError
from zproxy.wire.flood import BUDGET, CHATTER, WASTE, FloodGuard


def test_a_quiet_peer_never_saves_more_than_the_budget() -> None:
    guard = FloodGuard()
    guard.earn(10)
    guard.spend(BUDGET, "frames")
    with pytest.raises(RemoteProtocolError, match="too many frames") as caught:
        guard.spend(1, "frames")
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_one_frame_of_chatter_per_read_may_go_on_for_ever() -> None:
    guard = FloodGuard()
    for _ in range(10 * BUDGET):
        guard.spend(CHATTER, "PING frames")
        guard.earn(1)


def test_a_stream_given_up_in_a_later_read_costs_nothing() -> None:
    guard = FloodGuard()
    for _ in range(10 * BUDGET):
        guard.earn(1)
        guard.spend(WASTE, "streams reset before their answer")
        guard.earn(1)


def test_streams_reset_in_the_read_that_opens_them_add_up() -> None:
    guard = FloodGuard()
    for _ in range(BUDGET - 1):
        guard.spend(WASTE, "streams reset before their answer")
        guard.earn(1)
    with pytest.raises(RemoteProtocolError):
        guard.spend(WASTE, "streams reset before their answer")
