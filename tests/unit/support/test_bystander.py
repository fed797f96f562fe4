"""The traffic that notices a loss does notice one."""

from collections.abc import Iterator

import pytest

from tests.support.bystander import DATAGRAMS, ECHO, STREAM, Traffic, traffic
from tests.support.netns import Namespace
from tests.support.nodes import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def running(pod: Namespace, peer: Namespace) -> Iterator[Traffic]:
    with traffic(pod, peer) as made:
        yield made


def broken(where: Namespace, chain: str, rule: str, until: str) -> None:
    """Let a rule do harm until its counter says that it did."""
    where.execute("iptables", "-I", chain, *rule.split())
    listed = ("iptables", "-nvxL", chain)
    wait_for(lambda: where.execute(*listed).stdout.splitlines()[2].split()[0] != "0", until)
    where.execute("iptables", "-D", chain, *rule.split())


def test_undisturbed_traffic_arrives_whole(running: Traffic) -> None:
    running.goes_on()
    for seen in running.end():
        assert min(seen.stream_received, seen.datagrams_received, seen.connects) > 20
        assert seen.slowest_ms > 0


def test_a_lost_datagram_is_noticed(running: Traffic, peer: Namespace) -> None:
    broken(peer, "INPUT", f"-p udp --dport {DATAGRAMS} -j DROP", "a datagram is dropped")
    running.goes_on()
    with pytest.raises(AssertionError, match=r"the pod's neighbour: \['datagram [0-9a-f]+ came instead of"):
        running.end()


def test_a_refused_connect_is_noticed(running: Traffic, pod: Namespace) -> None:
    rule = f"-p tcp --dport {ECHO} --syn -j REJECT --reject-with tcp-reset"
    broken(pod, "OUTPUT", rule, "a connect is refused")
    with pytest.raises(AssertionError, match=r"the pod: \['connect \d+: .*refused"):
        running.end()


def test_a_reset_of_the_established_connection_is_noticed(running: Traffic, pod: Namespace) -> None:
    rule = f"-p tcp --dport {STREAM} -j REJECT --reject-with tcp-reset"
    broken(pod, "OUTPUT", rule, "the connection is reset")
    with pytest.raises(AssertionError, match=r"the pod: .*send_stream: .*(reset|Broken pipe)"):
        running.end()
