"""Who stalls at a live 15008 loses its place when the daemon's own clock says so: ten seconds, for real."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.frame_peer import frame
from tests.support.nodes import wait_for
from tests.support.stranger import Scene, read_all, strange_scene, until
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode

pytestmark = pytest.mark.root


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with strange_scene(tmp_path) as made:
        yield made


def test_who_stalls_loses_its_place_at_the_deadline(scene: Scene) -> None:
    """Silent from the start, in the middle of the handshake, before the preface, and before the ACK."""
    lines = len(scene.lines())
    silent, halting = scene.dial(), scene.dial()
    halting.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    mute, rude = scene.peer(), scene.peer()
    rude.send(frames.PREFACE + frame(frames.SETTINGS))
    began = time.monotonic()

    def have_gone() -> bool:
        mute.step()
        rude.step()
        return len(scene.lines()) >= lines + 4

    until(mute, lambda: mute.is_secured)
    wait_for(have_gone, "four lines", 15)
    assert time.monotonic() - began > 9
    scene.exchange()
    gone = scene.lines()[lines:]
    assert len(gone) == 4
    assert sum("TLS and HTTP/2 handshake took longer than 10 s" in line for line in gone) == 3
    assert sum("SETTINGS acknowledgement took longer than 10 s" in line for line in gone) == 1
    for sock in (silent, halting):
        with sock:
            read_all(sock)
    assert rude.goaway is not None
    assert rude.goaway[0] == ErrorCode.SETTINGS_TIMEOUT
    for peer in (mute, rude):
        peer.close()
