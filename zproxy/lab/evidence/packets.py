"""Decodes captured packets: IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768).

Pure: bytes in, values out. What is not one of these is still counted, with its addresses if it has any.
"""

import socket
import struct
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint

TCP: Final = 6
UDP: Final = 17
ENCAPSULATIONS: Final = {4: "IP in IP", 41: "IPv6 in IP", 47: "GRE", 50: "ESP", 51: "AH"}
"""IP protocols (IANA) that carry packets inside packets, or IPsec."""
ENCAPSULATION_PORTS: Final = {
    4789: "VXLAN",
    8472: "VXLAN",
    6081: "Geneve",
    4754: "GRE in UDP",
    51820: "WireGuard",
}
"""UDP ports that do."""

_EXTENSIONS: Final = frozenset({0, 43, 60})
"""IPv6 extension headers that may stand before the payload: hop-by-hop, routing, destination options."""
_FRAGMENT: Final = 44
_SYN: Final = 0x02
_ACK: Final = 0x10


class Packet(NamedTuple):
    """One packet as it passed an interface. `protocol` is IANA's number, -1 for what is not IP."""

    interface: str
    protocol: int
    src: Endpoint
    dst: Endpoint
    payload: bytes = b""
    sequence: int = 0
    is_syn: bool = False
    """A connection's first packet: SYN without ACK."""
    is_synack: bool = False

    @property
    def endpoints(self) -> str:
        """The packet as tcpdump heads its lines."""
        return f"IP {self.src.ip}.{self.src.port} > {self.dst.ip}.{self.dst.port}"

    @property
    def encapsulation(self) -> str:
        """Which tunnel protocol this packet belongs to; empty for none."""
        if self.protocol == UDP:
            return ENCAPSULATION_PORTS.get(self.dst.port, "")
        return ENCAPSULATIONS.get(self.protocol, "")


def decode(interface: str, data: bytes) -> Packet:
    """Decode one packet that begins with its IP header; never raises, whatever the bytes are."""
    try:
        if data[0] >> 4 == 4:
            return _ipv4(interface, data)
        if data[0] >> 4 == 6:
            return _ipv6(interface, data)
    except (IndexError, struct.error, ValueError):
        pass
    nowhere = Endpoint("", 0)
    return Packet(interface, -1, nowhere, nowhere, data)


def _ipv4(interface: str, data: bytes) -> Packet:
    header = (data[0] & 0x0F) * 4
    total, _, offset = struct.unpack_from("!HHH", data, 2)
    src, dst = (socket.inet_ntop(socket.AF_INET, data[at : at + 4]) for at in (12, 16))
    # A total length of 0 is what segmentation offload leaves on packets above 64 KiB.
    body = data[header : total or len(data)]
    return _transport(interface, data[9], src, dst, body, is_first=not offset & 0x1FFF)


def _ipv6(interface: str, data: bytes) -> Packet:
    length = int.from_bytes(data[4:6], "big")
    following, at, is_first = data[6], 40, True
    src, dst = (socket.inet_ntop(socket.AF_INET6, data[a : a + 16]) for a in (8, 24))
    end = 40 + length if length else len(data)
    while following in _EXTENSIONS or following == _FRAGMENT:
        if following == _FRAGMENT:
            is_first = is_first and not struct.unpack_from("!H", data, at + 2)[0] & 0xFFF8
            following, at = data[at], at + 8
        else:
            following, at = data[at], at + 8 + data[at + 1] * 8
    return _transport(interface, following, src, dst, data[at:end], is_first=is_first)


def _transport(interface: str, protocol: int, src: str, dst: str, body: bytes, *, is_first: bool) -> Packet:
    if protocol not in (TCP, UDP) or not is_first:  # a later fragment has no ports
        return Packet(interface, protocol, Endpoint(src, 0), Endpoint(dst, 0), body)
    sport, dport = struct.unpack_from("!HH", body)
    ends = Endpoint(src, sport), Endpoint(dst, dport)
    if protocol == UDP:
        return Packet(interface, protocol, *ends, body[8:])
    (sequence,) = struct.unpack_from("!I", body, 4)
    flags = body[13]
    return Packet(
        interface,
        protocol,
        *ends,
        payload=body[(body[12] >> 4) * 4 :],
        sequence=sequence,
        is_syn=flags & (_SYN | _ACK) == _SYN,
        is_synack=flags & (_SYN | _ACK) == _SYN | _ACK,
    )
