"""The PROXY protocol's header, version 2, as ambient meshes send it to the app of an application tunnel.

Source: haproxy's proxy-protocol.txt, section 2.2; the type of the identity's TLV is Istio's.
"""

import ipaddress
from typing import Final

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_AND_PROXY: Final = b"\x21"
_TCP4, _TCP6 = b"\x11", b"\x21"
IDENTITY_TLV: Final = 0xD0
"""Holds the URI of the client's identity."""


def header(source: Endpoint, destination: Endpoint, identity: SpiffeId | None) -> bytes:
    """Return the header of a connection that `source`, proven to be `identity`, meant for `destination`.

    Addresses of two families are both written as IPv6, the other one mapped (RFC 4291 2.5.5.2).
    """
    is_v6 = source.is_v6 or destination.is_v6
    ends = _address(source.ip, is_v6=is_v6) + _address(destination.ip, is_v6=is_v6)
    ends += source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    tlv = b""
    if identity is not None:
        uri = str(identity).encode("ascii")
        tlv = IDENTITY_TLV.to_bytes(1, "big") + len(uri).to_bytes(2, "big") + uri
    body = ends + tlv
    family = _TCP6 if is_v6 else _TCP4
    return SIGNATURE + _VERSION_AND_PROXY + family + len(body).to_bytes(2, "big") + body


def _address(ip: str, *, is_v6: bool) -> bytes:
    address = ipaddress.ip_address(ip)
    if is_v6 and address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed
