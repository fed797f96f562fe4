"""The PROXY header: bytes by hand, and what a parser of its own makes of them."""

import ipaddress
import socket
import struct

import pytest

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.wire.proxy_protocol import SIGNATURE, header

WHO = SpiffeId("cluster.local", "demo", "client")


def test_ipv4_without_an_identity_byte_by_byte() -> None:
    made = header(Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80), None)
    assert made.hex(" ", 4) == "0d0a0d0a 000d0a51 5549540a 2111000c 0a000001 0a000002 9c400050"


def test_the_identity_is_a_tlv_of_type_d0() -> None:
    made = header(Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80), WHO)
    uri = b"spiffe://cluster.local/ns/demo/sa/client"
    assert made.endswith(b"\xd0" + struct.pack("!H", len(uri)) + uri)
    assert struct.unpack("!H", made[14:16])[0] == len(made) - 16


@pytest.mark.parametrize(
    ("source", "destination", "shown"),
    [
        ("fd00::1", "fd00::2", ("fd00::1", "fd00::2")),
        ("10.0.0.1", "fd00::2", ("::ffff:10.0.0.1", "fd00::2")),
        ("fd00::1", "10.0.0.2", ("fd00::1", "::ffff:10.0.0.2")),
    ],
)
def test_ipv6_and_both_families(source: str, destination: str, shown: tuple[str, str]) -> None:
    made = header(Endpoint(source, 1), Endpoint(destination, 65535), None)
    assert (made[:12], made[12:16]) == (SIGNATURE, b"\x21\x21\0\x24")
    ends = tuple(socket.inet_ntop(socket.AF_INET6, made[at : at + 16]) for at in (16, 32))
    assert tuple(map(ipaddress.ip_address, ends)) == tuple(map(ipaddress.ip_address, shown))
    assert made[48:] == b"\0\x01\xff\xff"
