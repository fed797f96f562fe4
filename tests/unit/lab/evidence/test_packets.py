"""Packets built by hand, decoded."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.lab.evidence.packets import TCP, UDP, decode
from zproxy.model.addr import Endpoint


def tcp(payload: bytes = b"", flags: int = 0x18, sequence: int = 7, options: bytes = b"") -> bytes:
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", 44224, 15008, sequence, 0, offset, flags, 512, 0, 0) + options + payload


def udp(payload: bytes, dport: int = 53) -> bytes:
    return struct.pack("!HHHH", 40000, dport, 8 + len(payload), 0) + payload


def ipv4(
    body: bytes, protocol: int = TCP, offset: int = 0, total: int | None = None, options: bytes = b""
) -> bytes:
    first = 0x40 | (20 + len(options)) // 4
    size = 20 + len(options) + len(body) if total is None else total
    head = struct.pack("!BBHHHBBH", first, 0, size, 1, offset, 64, protocol, 0)
    return head + socket.inet_aton("10.244.1.5") + socket.inet_aton("10.244.2.5") + options + body


def ipv6(body: bytes, following: int = TCP) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + ends + body


def test_a_tcp_packet_has_its_endpoints_and_payload() -> None:
    packet = decode("eth0", ipv4(tcp(b"hello", options=b"\1" * 12), options=b"\1" * 4))
    assert (packet.src, packet.dst) == (Endpoint("10.244.1.5", 44224), Endpoint("10.244.2.5", 15008))
    assert (packet.payload, packet.sequence, packet.protocol) == (b"hello", 7, TCP)
    assert packet.endpoints == "IP 10.244.1.5.44224 > 10.244.2.5.15008"


def test_ethernet_padding_is_no_payload() -> None:
    assert decode("eth0", ipv4(tcp()) + bytes(6)).payload == b""


def test_an_offloaded_packet_without_a_length_is_all_payload() -> None:
    assert decode("eth0", ipv4(tcp(b"x" * 70000), total=0)).payload == b"x" * 70000


@pytest.mark.parametrize(
    ("flags", "is_syn", "is_synack"), [(0x02, True, False), (0x12, False, True), (0x10, False, False)]
)
def test_the_first_packet_of_a_connection_is_told_from_its_answer(
    flags: int, is_syn: bool, is_synack: bool
) -> None:
    packet = decode("eth0", ipv4(tcp(flags=flags)))
    assert (packet.is_syn, packet.is_synack) == (is_syn, is_synack)


def test_udp_and_ipv6() -> None:
    packet = decode("eth0", ipv6(udp(b"query"), UDP))
    assert (packet.dst, packet.payload, packet.protocol) == (Endpoint("fd00::2", 53), b"query", UDP)


def test_extension_headers_are_walked() -> None:
    hop_by_hop = bytes([43, 0]) + bytes(6)
    routing = bytes([44, 1]) + bytes(14)
    first_fragment = bytes([TCP, 0, 0, 1]) + bytes(4)
    assert decode("eth0", ipv6(hop_by_hop + routing + first_fragment + tcp(b"x"), 0)).payload == b"x"


def test_a_later_fragment_has_no_ports_but_keeps_its_bytes() -> None:
    packet = decode("eth0", ipv4(b"secret bytes", offset=185))
    assert (packet.dst, packet.payload) == (Endpoint("10.244.2.5", 0), b"secret bytes")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ipv4(b"", 4), "IP in IP"),
        (ipv4(b"", 47), "GRE"),
        (ipv4(udp(b"", 4789), UDP), "VXLAN"),
        (ipv4(udp(b"", 6081), UDP), "Geneve"),
        (ipv4(udp(b"", 53), UDP), ""),
        (ipv4(tcp()), ""),
    ],
)
def test_packets_in_packets_are_named(data: bytes, name: str) -> None:
    assert decode("eth0", data).encapsulation == name


@given(
    st.binary(max_size=200)
    | st.binary(max_size=120).map(lambda b: b"\x45" + b)
    | st.binary(max_size=120).map(ipv4)
)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    decode("eth0", data)
