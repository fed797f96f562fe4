"""What steering does, in words: the rows are those of bpf/zp_sock.c."""

import pytest

from tests.support.mesh import workload
from zproxy.model.addr import Endpoint
from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions, UdpPolicy
from zproxy.node.why_steering import Steered, steer_tcp, steer_udp
from zproxy.state.trace import Trace

POD = workload("demo/pod", "10.0.0.2", "fd00::2")
DNS = PodOptions(dns=True)
NO_DNS = PodOptions(dns=False)
BLOCK = PodOptions(dns=False, udp=UdpPolicy.BLOCK)


@pytest.mark.parametrize(
    ("ip", "port", "options", "steered", "why"),
    [
        ("10.0.0.3", 80, DEFAULT_OPTIONS, Steered.PROXY, "its TCP is steered to the straw"),
        ("10.0.0.3", 53, NO_DNS, Steered.PROXY, "its TCP is steered to the straw"),
        ("10.0.0.3", 53, DNS, Steered.DNS, "its DNS is steered to the straw"),
        ("127.8.0.1", 80, DEFAULT_OPTIONS, Steered.PAST, "127.8.0.1 is loopback, which is never steered"),
        ("::1", 53, DNS, Steered.PAST, "::1 is loopback"),
        ("0.0.0.0", 80, DEFAULT_OPTIONS, Steered.PAST, "is the pod itself"),
        ("224.0.0.1", 80, DEFAULT_OPTIONS, Steered.PAST, "is a group"),
        ("255.255.255.255", 80, DEFAULT_OPTIONS, Steered.PAST, "is a group"),
        ("ff02::1", 80, DEFAULT_OPTIONS, Steered.PAST, "is a group"),
        ("169.254.7.127", 80, DEFAULT_OPTIONS, Steered.PAST, "is the source of kubelet's probes"),
        ("10.0.0.2", 80, DEFAULT_OPTIONS, Steered.PAST, "is the pod's own address"),
        ("fd00::2", 80, DEFAULT_OPTIONS, Steered.PAST, "is the pod's own address"),
    ],
)
def test_tcp(ip: str, port: int, options: PodOptions, steered: Steered, why: str) -> None:
    trace = Trace()
    found = steer_tcp(POD, options, Endpoint(ip, port), trace)
    assert found.steered is steered
    assert why in found.why
    assert len(trace.steps) == 1


@pytest.mark.parametrize(
    ("ip", "port", "options", "steered", "why"),
    [
        ("10.0.0.3", 443, DEFAULT_OPTIONS, Steered.PAST, "in the clear; `zproxy udp` shows it"),
        ("10.0.0.3", 443, BLOCK, Steered.DROPPED, "blocked (--udp block)"),
        ("10.0.0.3", 53, BLOCK, Steered.PAST, "DNS is neither recorded nor blocked"),
        ("10.0.0.3", 53, DNS, Steered.DNS, "its DNS is steered to the straw"),
        ("127.0.0.1", 443, BLOCK, Steered.PAST, "loopback"),
    ],
)
def test_udp(ip: str, port: int, options: PodOptions, steered: Steered, why: str) -> None:
    found = steer_udp(POD, options, Endpoint(ip, port), Trace())
    assert found.steered is steered
    assert why in found.why
