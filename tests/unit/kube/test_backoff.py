"""Waits grow, end somewhere, differ between nodes, and begin anew."""

from zproxy.kube.backoff import FIRST_S, LONGEST_S, Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    waits = [backoff.wait_s() for _ in range(10)]
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S == max(waits)


def test_each_is_drawn_from_the_upper_half() -> None:
    assert Backoff(draw=lambda: 0.0).wait_s() == FIRST_S / 2
    assert len({Backoff().wait_s() for _ in range(20)}) > 1


def test_success_begins_anew() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    for _ in range(5):
        backoff.wait_s()
    backoff.reset()
    assert backoff.wait_s() == FIRST_S


def test_a_server_may_ask_for_more_but_not_for_ever() -> None:
    assert Backoff(draw=lambda: 0.0).wait_s(at_least=7.0) == 7.0
    assert Backoff(draw=lambda: 0.0).wait_s(at_least=86_400.0) == LONGEST_S
