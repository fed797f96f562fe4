"""Another mesh in a pod, made for real: its chains, its proxy's listeners, its XDP program."""

import socket
import subprocess
import sys

import pytest

from tests.support import foreign
from tests.support.netns import Namespace
from zproxy.errors import SteeringError
from zproxy.net.netns import Netns
from zproxy.steering import pod_rules

pytestmark = pytest.mark.root

LISTEN = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
sock.bind((sys.argv[1], int(sys.argv[2])))
sock.listen()
print(flush=True)
sys.stdin.read()
"""


def test_a_pod_of_nobody_is_fine(pod: Namespace) -> None:
    pod.execute("iptables", "-t", "nat", "-N", "KUBE-SERVICES")
    pod_rules.refuse("demo/pod", pod.netns)


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"])
@pytest.mark.parametrize(
    ("chain", "owner"),
    [("ISTIO_OUTPUT", "Istio"), ("ISTIO_PRERT", "Istio"), ("PROXY_INIT_REDIRECT", "Linkerd")],
)
def test_iptables_chains_of_a_mesh_are_named(pod: Namespace, tool: str, chain: str, owner: str) -> None:
    pod.execute(tool, "-t", "nat", "-N", chain)
    pod.execute(tool, "-t", "nat", "-A", "OUTPUT", "-j", chain)
    with pytest.raises(SteeringError, match=rf"{owner} redirects .* of demo/pod .* chain {chain} "):
        pod_rules.refuse("demo/pod", pod.netns)


def test_nft_tables_of_istio_are_named(pod: Namespace) -> None:
    pod.execute("nft", "add table inet istio-ambient-nat; add chain inet istio-ambient-nat output")
    with pytest.raises(SteeringError, match=r"Istio redirects .* istio-ambient-nat"):
        pod_rules.refuse("demo/pod", pod.netns)


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "127.0.0.1"])
def test_who_listens_on_a_port_of_the_straw_is_named(pod: Namespace, ip: str, port: int) -> None:
    command = ["ip", "netns", "exec", pod.name, sys.executable, "-c", LISTEN, ip, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()
        with pytest.raises(
            SteeringError, match=rf"port {port} of .* python.* \(process {proxy.pid}\) listens"
        ):
            pod_rules.refuse("demo/pod", pod.netns)
        proxy.communicate()


def test_what_a_straw_has_left_behind_is_no_listener(pod: Namespace) -> None:
    with pod.listen(15001) as listener, pod.socket() as app:
        app.connect((pod.ip4, 15001))
        listener.accept()[0].close()  # closed first: its end stays in TIME_WAIT
    assert not pod.run(lambda: pod_rules.is_taken(15001))


def test_a_connection_from_the_port_is_no_listener(pod: Namespace, peer: Namespace) -> None:
    with peer.listen(80), pod.socket() as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.bind((pod.ip4, 15006))
        app.connect((peer.ip4, 80))
        assert not pod.run(lambda: pod_rules.is_taken(15006))


def test_xdp_programs_are_listed_with_their_interface(pod: Namespace) -> None:
    assert pod.run(pod_rules.xdp_programs) == []
    code = foreign.instruction(0xB7, 0, 0, 2) + foreign.instruction(0x95)
    with foreign.at_interface(pod, code, "a_xdp"):
        ((interface, number),) = pod.run(pod_rules.xdp_programs)
        assert interface == "eth0"
        assert number > 0
    assert pod.run(pod_rules.xdp_programs) == []


def test_a_holder_that_cannot_be_found_is_somebody(pod: Namespace, tmp_path: object) -> None:
    with Netns.named(pod.name) as netns:
        assert pod_rules.holder(netns, 15001) == "somebody"
