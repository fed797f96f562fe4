"""Memory of a worker."""

from zproxy.net.buffers import SIZE, SPARE, Buffers


def test_a_batch_given_back_is_lent_again() -> None:
    buffers = Buffers()
    batch = buffers.borrow()
    assert len(batch) == SIZE
    buffers.give_back(batch)
    assert buffers.borrow() is batch


def test_two_borrowers_never_share() -> None:
    buffers = Buffers()
    one, other = buffers.borrow(), buffers.borrow()
    one[0], other[0] = 1, 2
    assert (one[0], other[0]) == (1, 2)


def test_a_burst_is_not_kept() -> None:
    buffers = Buffers()
    burst = [buffers.borrow() for _ in range(SPARE + 5)]
    for batch in burst:
        buffers.give_back(batch)
    again = [buffers.borrow() for _ in range(SPARE + 5)]
    assert sum(any(batch is old for old in burst) for batch in again) == SPARE
