import pytest
from h2.events import ConnectionTerminated, PingReceived, RemoteSettingsChanged

from tests.unit.wire.peers import LIMITS, frame, parse, settings
from zproxy.wire import frames
from zproxy.wire.control import Control
from zproxy.wire.errors import ErrorCode, RemoteProtocolError


def announced(payload: bytes) -> dict[int, int]:
    pairs = (payload[at : at + 6] for at in range(0, len(payload), 6))
    return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


def test_a_client_starts_with_preface_and_settings() -> None:
    raw = Control(is_server=False, limits=LIMITS).start()
    assert raw.startswith(frames.PREFACE)
    ((kind, flags, stream_id, payload),) = parse(raw[len(frames.PREFACE) :])
    assert (kind, flags, stream_id) == (frames.SETTINGS, 0, 0)
    ours = announced(payload)
    assert (ours[1], ours[2], ours[4], ours[5], ours[6]) == (0, 0, 4 << 20, 1 << 20, 64 << 10)


def test_a_server_also_limits_streams() -> None:
    ((_, _, _, payload),) = parse(Control(is_server=True, limits=LIMITS).start())
    assert announced(payload)[3] == 200


def test_settings_and_pings_are_answered() -> None:
    control = Control(is_server=False, limits=LIMITS)
    control.start()
    (event,) = control.receive(settings(s3=7))
    assert isinstance(event, RemoteSettingsChanged)
    assert parse(control.output()) == [(frames.SETTINGS, frames.ACK, 0, b"")]
    (event,) = control.receive(frame(frames.PING, 0, 0, b"12345678"))
    assert isinstance(event, PingReceived)
    assert parse(control.output()) == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_a_goaway_either_way_leaves_the_rest_of_stream_0_alive() -> None:
    control = Control(is_server=False, limits=LIMITS)
    control.start()
    (event,) = control.receive(frame(frames.GOAWAY, 0, 0, bytes(8)))
    assert isinstance(event, ConnectionTerminated)
    control.goaway(0, 0)
    control.receive(frame(frames.PING, 0, 0, b"12345678"))
    control.receive(settings(s4=5))
    assert [kind for kind, *_ in parse(control.output())] == [frames.PING, frames.SETTINGS]
    assert parse(control.ping(b"abcdefgh")) == [(frames.PING, 0, 0, b"abcdefgh")]


def test_a_goaway_tells_code_last_stream_and_cause() -> None:
    control = Control(is_server=True, limits=LIMITS)
    control.start()
    ((kind, _, stream_id, payload),) = parse(control.goaway(11, 41, "why"))
    assert (kind, stream_id) == (frames.GOAWAY, 0)
    assert payload == (41).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"why"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (settings(s2=2), ErrorCode.PROTOCOL_ERROR),
        (settings(s4=1 << 31), ErrorCode.FLOW_CONTROL_ERROR),
        (settings(s5=16_383), ErrorCode.PROTOCOL_ERROR),
        (settings(s5=1 << 24), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(frames.GOAWAY, 0, 3, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_a_bad_frame_is_an_error_and_no_goaway_of_h2s_own(raw: bytes, code: ErrorCode) -> None:
    control = Control(is_server=False, limits=LIMITS)
    control.start()
    with pytest.raises(RemoteProtocolError) as caught:
        control.receive(raw)
    assert caught.value.code is code
    assert control.output() == b""


def test_settings_that_nobody_knows_are_not_kept() -> None:
    control = Control(is_server=True, limits=LIMITS)
    control.start()
    control.receive(frames.PREFACE)
    known = len(control._h2.remote_settings)
    for code in range(100, 1000, 10):
        control.receive(settings(**{f"s{code + offset}": 1 for offset in range(10)}))
    assert len(control._h2.remote_settings) == known


@pytest.mark.parametrize("cut", [1, 10, 23])
def test_a_wrong_preface_is_refused_wherever_it_is_cut(cut: int) -> None:
    control = Control(is_server=True, limits=LIMITS)
    control.start()
    control.receive(frames.PREFACE[:cut])
    with pytest.raises(RemoteProtocolError, match="preamble"):
        control.receive(b"!")
