"""Who is behind a stream: what a tunnel tells the owner of each of its streams."""

from typing import Final, Protocol

from zproxy.errors import ZproxyError
from zproxy.wire.headers import Headers


class StreamOwner(Protocol):
    """The app's side of a stream. Called by its tunnel only; after `on_reset` or `on_lost` NEVER again."""

    def on_answer(self, status: int, headers: Headers) -> None:
        """Our CONNECT was answered."""

    def on_data(self, chunks: list[memoryview]) -> None:
        """Bytes for the app; valid until this returns, credit is given by `Tunnel.credit`."""

    def on_end(self) -> None:
        """The peer will send no more."""

    def on_reset(self, code: int) -> None:
        """The peer broke the stream (RFC 9113 section 7 code)."""

    def on_room(self) -> None:
        """A `pull` that found NO_ROOM may be tried again."""

    def on_lost(self, error: ZproxyError) -> None:
        """The tunnel ended before the stream did."""


class _Nobody:
    """Owner of a stream whose app is gone, or never was: whatever still comes concerns no one."""

    def on_answer(self, status: int, headers: Headers) -> None:
        """See StreamOwner."""

    def on_data(self, chunks: list[memoryview]) -> None:
        """Drop it; the stream is closed, and so its window needs no credit."""

    def on_end(self) -> None:
        """See StreamOwner."""

    def on_reset(self, code: int) -> None:
        """See StreamOwner."""

    def on_room(self) -> None:
        """See StreamOwner."""

    def on_lost(self, error: ZproxyError) -> None:
        """See StreamOwner."""


NOBODY: Final = _Nobody()
