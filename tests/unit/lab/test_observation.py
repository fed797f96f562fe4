"""What an observation selects from its captures."""

from dataclasses import replace

from tests.unit.lab.healthy import CLIENT_IP, OUTER, PEER, SERVER_IP, client_pod, healthy, packet, wire
from zproxy.lab.evidence.capture import Captured
from zproxy.model.addr import Endpoint


def test_the_wire_is_what_passed_between_the_two_pods() -> None:
    elsewhere = packet(Endpoint(CLIENT_IP, 1), Endpoint("10.244.9.9", 15008))
    inside = packet(OUTER, PEER, interface="lo")
    source = replace(client_pod(), captured=Captured((elsewhere, *wire(), inside), 0))
    assert healthy(source=source).wire() == wire()


def test_the_source_comes_first() -> None:
    assert [pod.address for pod in healthy().pods()] == [CLIENT_IP, SERVER_IP]
