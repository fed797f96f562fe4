"""What each reason of the programs means, for people; the numbers are in bpf/lib/reasons.h."""

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[str, str]] = {
    "captured_v4": "IPv4 connects of apps that were steered to the straw",
    "captured_v6": "IPv6 connects, likewise",
    "exempt_self": "connects of the proxy's own sockets",
    "exempt_loopback": "connects to 127.0.0.0/8 and ::1",
    "exempt_own_ip": "connects to the pod's own addresses",
    "exempt_unspecified": "connects to 0.0.0.0 and ::, which mean the pod itself",
    "exempt_multicast": "connects to multicast or broadcast addresses",
    "exempt_probe": "connects to the address that Istio gives to kubelet's probes",
    "refused_no_family": "connects refused: the pod has no address of that family",
    "handed_over": "steered connections that the straw accepted with their original destination",
    "handover_missing": "connections that an app made to the straw's port itself, or whose entry was evicted",
    "inbound_recorded": "inbound packets without a socket, meant for the plaintext listener",
    "inbound_assigned": "of these, handed to the plaintext listener",
    "no_listener": "of these, reset: the listener is gone",
    "assign_error": "of these, refused: the listener could not take them",
    "malformed": "inbound packets dropped: TCP whose header cannot be read",
    "map_full": "entries that could not be written",
    "inbound_probe": "inbound connections of kubelet that went to the app as they came",
    "dns_captured": "DNS queries and connects that went to the straw",
    "dns_restored": "DNS answers that show the resolver that was asked",
    "dns_unknown": "DNS answers whose resolver is not known any more",
    "dns_refused": "DNS queries refused: no alias was free",
    "udp_clear": "UDP packets that left in the clear",
    "udp_blocked": "UDP packets that were not let out",
    "clear_blocked": "TCP handshakes past connect(), from raw sockets, that were not let out",
    "forwarded": "TCP handshakes that the pod forwards for somebody else",
    "fail_open_out": "connects let out in the clear: no daemon lives, and the pod is to fail open",
    "fail_open_in": "inbound packets let in in the clear, likewise",
    "ports_scarce": "connects made while nine tenths of the pod's source ports were in use",
    "begun_before": "TCP handshakes let out in the clear: of connects from before the pod was enrolled",
    "alias_blocked": "DNS queries not let out in the clear: the routes to the straw were gone, or DNS is off",
}
"""Reason → what it counts."""
