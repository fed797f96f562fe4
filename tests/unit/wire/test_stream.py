import pytest

from tests.unit.wire.peers import SMALL, parse
from zproxy.config import Limits
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, LocalProtocolError
from zproxy.wire.stream import REMEMBERED_RESETS, Link, Role, Stream


@pytest.fixture
def link() -> Link:
    link = Link(Role.SERVER, SMALL)
    link.settings_acknowledged()
    return link


def receive(link: Link, stream: Stream, size: int) -> None:
    """Charge `size` bytes as the reader does."""
    link.window.available -= size
    stream.window.available -= size
    stream.unread += size


def increments(link: Link) -> dict[int, int]:
    total: dict[int, int] = {}
    for kind, _, stream_id, payload in parse(bytes(link.out)):
        if kind == frames.WINDOW_UPDATE:
            total[stream_id] = total.get(stream_id, 0) + frames.word(memoryview(payload))
    return total


def lost(link: Link) -> int:
    """Bytes that the connection's window has lost: neither open, nor owed, nor with a driver."""
    unread = sum(stream.unread for stream in link.streams.values())
    return SMALL.connection_window - link.window.available - link.window.owed - unread


def test_credit_is_announced_for_stream_and_connection(link: Link) -> None:
    stream = link.add(1)
    for _ in range(72):
        receive(link, stream, 1000)
        link.credit(stream, 1000)
    assert increments(link) == {0: 72_000, 1: 72_000}
    assert lost(link) == 0


def test_credit_after_the_peers_end_is_for_the_connection_alone(link: Link) -> None:
    stream = link.add(1)
    receive(link, stream, 1000)
    stream.is_remote_ended = True
    link.credit(stream, 1000)
    assert increments(link) == {}
    assert lost(link) == 0


def test_more_credit_than_bytes_is_a_bug(link: Link) -> None:
    stream = link.add(1)
    receive(link, stream, 10)
    with pytest.raises(LocalProtocolError, match="11 bytes of stream 1, 10 unread"):
        link.credit(stream, 11)


def test_a_reset_returns_what_nobody_read(link: Link) -> None:
    for stream_id in range(1, 201, 2):
        stream = link.add(stream_id)
        receive(link, stream, 1000)
        link.credit(stream, 300)
        link.reset(stream, ErrorCode.CANCEL)
        link.credit(stream, 700)  # comes late: the driver hears of the reset afterwards
        assert lost(link) == 0
    assert not link.streams


def test_a_stream_that_ended_both_ways_owes_until_its_driver_reads_or_resets(link: Link) -> None:
    stream = link.add(1)
    receive(link, stream, 1000)
    stream.is_remote_ended = True
    link.end_local(stream)
    assert stream.is_closed
    link.credit(stream, 600)
    assert lost(link) == 400, "back-pressure outlives the stream"
    link.reset(stream, ErrorCode.CANCEL)
    assert lost(link) == 0
    assert not parse(bytes(link.out)), "a closed stream is not reset again"


def test_resets_are_remembered_but_not_for_ever(link: Link) -> None:
    for stream_id in range(1, 2 * REMEMBERED_RESETS + 5, 2):
        link.reset(link.add(stream_id), ErrorCode.CANCEL)
    assert len(link.resets) == REMEMBERED_RESETS
    assert link.resets[2 * REMEMBERED_RESETS + 3] == SMALL.stream_window
    assert 1 not in link.resets


def test_even_streams_are_idle_for_ever(link: Link) -> None:
    link.add(5)
    assert [link.is_idle(stream_id) for stream_id in (1, 4, 5, 6, 7)] == [False, True, False, True, True]
    assert link.opened == 1


def test_before_its_ack_a_peer_may_use_the_window_that_every_stream_has() -> None:
    link = Link(Role.SERVER, SMALL)
    early = link.add(1)
    receive(link, early, 60_000)
    link.settings_acknowledged()
    assert (early.window.available, link.add(3).window.available) == (1000 - 60_000, 1000)
    link.credit(early, 60_000)
    assert early.window.available == 1000
    assert increments(link)[1] == 60_000


def test_a_stream_reset_with_a_negative_window_expects_nothing_more() -> None:
    link = Link(Role.SERVER, SMALL)
    early = link.add(1)
    receive(link, early, 60_000)
    link.settings_acknowledged()
    link.reset(early, ErrorCode.CANCEL)
    assert link.resets == {1: 0}


def test_a_window_larger_than_the_first_one_is_open_at_once() -> None:
    link = Link(Role.SERVER, Limits(stream_window=100_000))
    early = link.add(1)
    link.settings_acknowledged()
    assert early.window.available == link.add(3).window.available == 100_000
