"""Stream 0, owned by h2: preface, SETTINGS and their ACK, PING, GOAWAY (RFC 9113 section 3.4, 6.5, 6.7, 6.8).

h2 is shown these frames alone, one whole frame at a time, and knows of no stream. Its state machine closes on
GOAWAY, after which it would refuse every frame; but a tunnel that drains lives on, so it is opened again.
"""

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from zproxy.config import Limits
from zproxy.wire.errors import ErrorCode, RemoteProtocolError

_KNOWN = frozenset(SettingCodes)


class Control:
    """Both sides of the connection's own stream."""

    __slots__ = ("_h2",)

    def __init__(self, *, is_server: bool, limits: Limits) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=not is_server, header_encoding=None))
        self._h2.local_settings = Settings(client=not is_server, initial_values=_announced(is_server, limits))

    def start(self) -> bytes:
        """Return the preface and our SETTINGS."""
        self._h2.initiate_connection()
        return self._h2.data_to_send()

    def receive(self, frame: bytes) -> Iterable[Event]:
        """Show h2 a piece of the preface or one whole frame of stream 0; its answers are in `output`."""
        h2 = self._h2
        try:
            events = h2.receive_data(frame)
        except ProtocolError as error:
            h2.clear_outbound_data_buffer()  # its own GOAWAY: ours names the last stream and the cause
            raise RemoteProtocolError(ErrorCode(error.error_code), str(error)) from error
        self._reopen()
        self._forget_unknown_settings()
        return events

    def output(self) -> bytes:
        """Return what h2 has to say since the last call."""
        return self._h2.data_to_send()

    def ping(self, opaque: bytes) -> bytes:
        """Return a PING frame with 8 bytes of ours."""
        self._h2.ping(opaque)
        return self._h2.data_to_send()

    def goaway(self, code: int, last_stream_id: int, text: str = "") -> bytes:
        """Return a GOAWAY frame; `text` is for the peer's operators."""
        self._reopen()
        self._h2.close_connection(code, text.encode() or None, last_stream_id)
        self._reopen()
        return self._h2.data_to_send()

    def _reopen(self) -> None:
        self._h2.state_machine.state = ConnectionState.IDLE

    def _forget_unknown_settings(self) -> None:
        """Keep a peer from filling memory with settings that nobody knows."""
        remote = self._h2.remote_settings
        if len(remote) > len(_KNOWN):
            for code in [code for code in remote if code not in _KNOWN]:
                del remote[code]


def _announced(is_server: bool, limits: Limits) -> dict[SettingCodes, int]:
    """No dynamic table, no push; extended CONNECT stays off."""
    announced = {
        SettingCodes.HEADER_TABLE_SIZE: 0,
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
        SettingCodes.MAX_FRAME_SIZE: limits.max_frame,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list,
    }
    if is_server:
        announced[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.max_streams_server
    return announced
