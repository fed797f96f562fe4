"""Packets captured in a pod's namespace."""

import socket

import pytest

from tests.support.netns import Namespace, pair
from zproxy.lab.evidence import capture
from zproxy.lab.evidence.capture import Capture
from zproxy.lab.evidence.packets import TCP, UDP
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


def _send(source: Namespace, ip: str, port: int, payload: bytes, times: int = 1) -> Endpoint:
    with source.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(times):
            sender.sendto(payload, (ip, port))
        return Endpoint(*sender.getsockname()[:2])


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_both_directions_of_a_connection_are_captured(family: str) -> None:
    with pair() as (client, server), server.listen(8080) as listener, Capture(client.netns) as running:
        to = getattr(server, family)
        with client.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as dialled:
            dialled.connect((to, 8080))
            dialled.sendall(b"a question")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(100) == b"a question"
                accepted.sendall(b"an answer")
                assert dialled.recv(100) == b"an answer"
        found = [p for p in running.result().packets if p.protocol == TCP]
        mine = getattr(client, family)
        assert [p.payload for p in found if p.src.ip == mine and p.payload] == [b"a question"]
        assert [p.payload for p in found if p.src == Endpoint(to, 8080) and p.payload] == [b"an answer"]
        assert sum(p.is_syn for p in found) == 1
        assert {p.interface for p in found} == {"eth0"}


def test_loopback_is_told_apart_and_seen_once() -> None:
    with pair() as (client, server), Capture(client.netns) as running:
        _send(client, "127.0.0.1", 9, b"inside")
        _send(client, server.ip4, 9, b"outside")
        result = running.result()
        assert [p.payload for p in result.on_loopback() if p.protocol == UDP] == [b"inside"]
        assert [p.payload for p in result.on_wire() if p.protocol == UDP] == [b"outside"]


def test_what_does_not_fit_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_PACKETS", 3)
    with pair() as (client, server), Capture(client.netns) as running:
        _send(client, server.ip4, 9, b"x", times=5)
        result = running.result()
        assert len(result.packets) == 3
        assert result.lost >= 2


def test_what_the_kernel_dropped_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_BUFFER", 4096)
    with pair() as (client, server), Capture(client.netns) as running:
        _send(client, server.ip4, 9, b"x" * 1000, times=50)
        assert running.result().lost > 0


def test_a_large_burst_fits() -> None:
    with pair() as (client, server), Capture(client.netns) as running:
        _send(client, server.ip4, 9, b"x" * 1000, times=2000)
        result = running.result()
        assert result.lost == 0
        assert sum(p.protocol == UDP and p.src.ip == client.ip4 for p in result.packets) == 2000
