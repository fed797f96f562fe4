"""What steering does with what an enrolled pod sends, in words, by the rules of bpf/zp_sock.c. Pure."""

import ipaddress
from enum import Enum
from typing import Final, NamedTuple

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.attach import ISTIO_PROBE_IPS
from zproxy.model.pod import PodOptions, UdpPolicy
from zproxy.model.workload import Workload
from zproxy.state.trace import Trace

DNS_PORT: Final = 53


class Steered(Enum):
    """Where a packet or connection goes first."""

    PROXY = "to the straw"
    DNS = "to the straw's DNS"
    PAST = "past the mesh"
    """In the clear, to where it was sent; the mesh has no say."""
    DROPPED = "nowhere"


class Steering(NamedTuple):
    """The outcome, and why as a part of a sentence."""

    steered: Steered
    why: str


def steer_tcp(pod: Workload, options: PodOptions, to: Endpoint, trace: Trace) -> Steering:
    """Return what becomes of a connection of an app in `pod` to `to`."""
    exempt = exemption(pod, to.ip)
    if exempt:
        trace.note("steering", "not steered", exempt)
        return Steering(Steered.PAST, exempt)
    if to.port == DNS_PORT and options.dns:
        trace.note("steering", "steered", f"DNS goes to port {ports.DNS} of the straw")
        return Steering(Steered.DNS, "its DNS is steered to the straw")
    trace.note("steering", "steered", f"to port {ports.OUTBOUND} of the pod's straw")
    return Steering(Steered.PROXY, "its TCP is steered to the straw")


def steer_udp(pod: Workload, options: PodOptions, to: Endpoint, trace: Trace) -> Steering:
    """Return what becomes of a datagram of an app in `pod` to `to`."""
    exempt = exemption(pod, to.ip)
    if exempt:
        found = Steering(Steered.PAST, exempt)
    elif to.port == DNS_PORT and options.dns:
        found = Steering(Steered.DNS, "its DNS is steered to the straw")
    elif to.port == DNS_PORT or options.udp is UdpPolicy.AUDIT:
        recorded = "DNS is neither recorded nor blocked" if to.port == DNS_PORT else "`zproxy udp` shows it"
        found = Steering(Steered.PAST, f"UDP is not carried, it leaves in the clear; {recorded}")
    else:
        found = Steering(Steered.DROPPED, "UDP that leaves the pod is blocked (--udp block)")
    trace.note("steering", found.steered.value, found.why)
    return found


def exemption(pod: Workload, ip: str) -> str:
    """Return why TCP to `ip` is left to the kernel; empty when it is not."""
    address = ipaddress.ip_address(ip)
    if address.is_loopback:
        return f"{ip} is loopback, which is never steered"
    if address.is_unspecified:
        return f"{ip} is the pod itself, which is never steered"
    if address.is_multicast or ip == "255.255.255.255":
        return f"{ip} is a group, which is never steered"
    if ip in ISTIO_PROBE_IPS:
        return f"{ip} is the source of kubelet's probes, which is never steered"
    if ip in pod.workload_ips:
        return f"{ip} is the pod's own address, which is never steered"
    return ""
