"""Scratch memory of a worker."""

from zproxy.net.buffers import SIZE, SPARE, Buffers


def test_a_batch_given_back_is_lent_again() -> None:
    buffers = Buffers()
    batch = buffers.borrow()
    buffers.give_back(batch)
    assert buffers.borrow() is batch


def test_two_borrowers_never_share_a_batch() -> None:
    buffers = Buffers()
    first, second = buffers.borrow(), buffers.borrow()
    first[0], second[0] = 1, 2
    assert first[0] == 1


def test_every_buffer_has_the_same_writable_size() -> None:
    buffers = Buffers()
    for buffer in (buffers.cipher, buffers.plain, buffers.borrow()):
        assert (len(buffer), buffer.readonly) == (SIZE, False)


def test_a_bursts_batches_go_back_to_the_allocator() -> None:
    buffers = Buffers()
    lent = [buffers.borrow() for _ in range(SPARE + 3)]
    for batch in lent:
        buffers.give_back(batch)
    known = {id(batch) for batch in lent}
    again = [buffers.borrow() for _ in range(SPARE + 3)]
    assert sum(id(batch) in known for batch in again) == SPARE
