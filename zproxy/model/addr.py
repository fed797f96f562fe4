"""Endpoints: an IP address in canonical text and a port."""

import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple

_LONGEST_IP: Final = 64
"""Characters: INET6_ADDRSTRLEN and a scope. Peers send addresses as text, and the cache keeps that text."""
_PORT: Final = re.compile(r"[0-9]{1,5}")


@lru_cache(maxsize=16384)
def canonical_ip(text: str) -> str:
    """Return the shortest text of an IP address, a v4-mapped IPv6 address as IPv4.

    Peers that reach a dual-stack `[::]` listener over IPv4 show as ::ffff:a.b.c.d; every lookup, policy
    and log works on the plain form. Raise ValueError when `text` is not an IP address.
    """
    if len(text) > _LONGEST_IP:
        raise ValueError(f"{text[:_LONGEST_IP]!r}... is not an IP address")
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


class Endpoint(NamedTuple):
    """An IP address (canonical text) and a port; also a valid socket address of its family."""

    ip: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Parse `a.b.c.d:port` or `[v6]:port`, without a scope; raise ValueError otherwise."""
        host, _, port = text.rpartition(":")
        if "%" in host or _PORT.fullmatch(port) is None or not 0 < int(port) < 65536:
            raise ValueError(f"{text[:_LONGEST_IP]!r} is not ip:port")
        if host.startswith("[") and host.endswith("]") and ":" in host:
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text[:_LONGEST_IP]!r}: an IPv6 address is written in brackets")
        return cls(canonical_ip(host), int(port))

    @property
    def is_v6(self) -> bool:
        """Whether the address is IPv6 (a v4-mapped one never is, see `canonical_ip`)."""
        return ":" in self.ip

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"
