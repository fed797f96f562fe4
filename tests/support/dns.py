"""A DNS listener that is none: it answers every query with the query, from the address that was asked."""

import socket
import struct
from typing import NamedTuple

from tests.support.netns import Namespace
from zproxy.model import ports
from zproxy.model.addr import Endpoint, canonical_ip

IP_PKTINFO = 8
IP_FREEBIND = 15
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_FREEBIND = 78
"""The aliases are local by a route, not configured, and to send from one takes this."""


class Query(NamedTuple):
    """One query as a DNS server sees it."""

    data: bytes
    source: Endpoint
    alias: str


class EchoDns:
    """UDP and TCP on 15053 of a pod."""

    def __init__(self, pod: Namespace) -> None:
        self.udp = pod.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for level, option in (
            (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO),
            (socket.IPPROTO_IP, IP_PKTINFO),
            (socket.IPPROTO_IPV6, IPV6_FREEBIND),
            (socket.IPPROTO_IP, IP_FREEBIND),
        ):
            self.udp.setsockopt(level, option, 1)
        self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.udp.bind(("::", ports.DNS))
        self.tcp = pod.listen(ports.DNS)

    def answer(self) -> Query:
        """Take one query and send it back in capitals."""
        data, ancillary, _, source = self.udp.recvmsg(4096, 512)
        alias = next(
            value[:16]
            for level, kind, value in ancillary
            if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO)
        )
        control = (socket.IPPROTO_IPV6, IPV6_PKTINFO, alias + struct.pack("=i", 0))
        self.udp.sendmsg([data.upper()], [control], 0, source)
        peer = Endpoint(canonical_ip(source[0]), source[1])
        return Query(data, peer, canonical_ip(socket.inet_ntop(socket.AF_INET6, alias)))

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()
