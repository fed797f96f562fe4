import pytest

from tests.unit.wire.peers import parse
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode, RemoteProtocolError


def test_a_head_is_nine_bytes_as_the_rfc_draws_them() -> None:
    assert frames.head(0x010203, 4, 5, 6) == bytes.fromhex("010203 04 05 00000006")
    assert frames.HEAD.size == frames.HEAD_SIZE


def test_rst_stream_and_window_update_carry_one_word() -> None:
    assert frames.rst_stream(3, 8) == bytes.fromhex("000004 03 00 00000003 00000008")
    assert frames.window_update(0, 1 << 20) == bytes.fromhex("000004 08 00 00000000 00100000")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 35])
@pytest.mark.parametrize("end_stream", [False, True])
def test_a_block_larger_than_a_frame_goes_on_in_continuations(size: int, end_stream: bool) -> None:
    block = bytes(range(size))
    (kind, flags, stream_id, first), *rest = parse(frames.headers(7, block, 10, end_stream=end_stream))
    assert (kind, stream_id) == (frames.HEADERS, 7)
    assert bool(flags & frames.END_STREAM) is end_stream
    assert all((kind, stream_id) == (frames.CONTINUATION, 7) for kind, _, stream_id, _ in rest)
    assert first + b"".join(payload for *_, payload in rest) == block
    assert all(len(payload) <= 10 for *_, payload in rest)
    ends = [bool(flags & frames.END_HEADERS) for flags in (flags, *(flags for _, flags, _, _ in rest))]
    assert ends == [False] * len(rest) + [True]


@pytest.mark.parametrize(
    ("flags", "payload", "fragment"),
    [
        (0, b"block", b"block"),
        (frames.PADDED, b"\x02block\0\0", b"block"),
        (frames.PADDED, b"\x00", b""),
        (frames.HAS_PRIORITY, b"priorblock", b"block"),
        (frames.HAS_PRIORITY | frames.PADDED, b"\x01priorblock\0", b"block"),
    ],
)
def test_padding_and_priority_are_taken_off(flags: int, payload: bytes, fragment: bytes) -> None:
    assert frames.header_fragment(flags, memoryview(payload)) == fragment


@pytest.mark.parametrize(
    ("flags", "payload", "code"),
    [
        (frames.PADDED, b"", ErrorCode.FRAME_SIZE_ERROR),
        (frames.HAS_PRIORITY, b"prio", ErrorCode.FRAME_SIZE_ERROR),
        (frames.PADDED, b"\x06block", ErrorCode.PROTOCOL_ERROR),
        (frames.PADDED | frames.HAS_PRIORITY, b"\x01prior", ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_headers_that_do_not_add_up_are_refused(flags: int, payload: bytes, code: ErrorCode) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        frames.header_fragment(flags, memoryview(payload))
    assert caught.value.code is code


def test_a_word_of_another_size_is_refused() -> None:
    assert frames.word(memoryview(b"\0\0\1\0")) == 256
    with pytest.raises(RemoteProtocolError, match="FRAME_SIZE_ERROR"):
        frames.word(memoryview(b"\0\0\1"))
