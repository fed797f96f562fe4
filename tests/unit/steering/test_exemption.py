"""zp_exempt, written through a socket's descriptor."""

import socket
import struct
import time
from functools import partial
from typing import Any

import pytest

from tests.support.netns import PREFIX
from tests.support.threads import at_once, let_others_run
from zproxy.errors import SteeringError
from zproxy.steering import syscall
from zproxy.steering.layout import ENABLED
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root


def test_the_socket_and_no_other_is_marked(steering: Steering) -> None:
    objects = open_maps(NodePins(f"{PREFIX}unit"))
    with socket.socket() as own, socket.socket() as other:
        steering.exempt(own.fileno())
        assert stored(objects.maps["zp_exempt"], own) == ENABLED
        assert stored(objects.maps["zp_exempt"], other) is None
    objects.close()


def test_exempting_twice_is_fine(steering: Steering) -> None:
    with socket.socket() as own:
        steering.exempt(own.fileno())
        steering.exempt(own.fileno())


@pytest.mark.parametrize("fd", [-1, 1 << 20])
def test_what_is_no_socket_is_refused(steering: Steering, fd: int) -> None:
    with pytest.raises(SteeringError, match="cannot exempt a socket of the proxy from steering: Bad file"):
        steering.exempt(fd)


def test_it_costs_microseconds(steering: Steering) -> None:
    with socket.socket() as own:
        fd, exempt = own.fileno(), steering.exempt
        best = min(timed(exempt, fd) for _ in range(20))
    assert best < 20e-6


def timed(exempt: object, fd: int) -> float:
    assert callable(exempt)
    started = time.perf_counter()
    for _ in range(100):
        exempt(fd)
    return (time.perf_counter() - started) / 100


def stored(table: int, sock: socket.socket) -> bytes | None:
    return syscall.map_lookup(table, struct.pack("=i", sock.fileno()), 4)


def test_threads_that_exempt_at_once_each_mark_their_own(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one's descriptor in the other's call, a socket would stay unmarked and dial itself."""
    objects = open_maps(NodePins(f"{PREFIX}unit"))
    table = objects.maps["zp_exempt"]
    call = steering.exempt._call

    def let_others_run_first(*arguments: Any) -> Any:
        let_others_run()  # as an interpreter may do at any point
        return call(*arguments)

    monkeypatch.setattr(steering.exempt, "_call", let_others_run_first)
    sockets = [[socket.socket() for _ in range(100)] for _ in range(4)]

    def work(own: list[socket.socket]) -> None:
        for sock in own:
            steering.exempt(sock.fileno())

    at_once([partial(work, own) for own in sockets])
    assert all(stored(table, sock) == ENABLED for own in sockets for sock in own)
    for own in sockets:
        for sock in own:
            sock.close()
    objects.close()
