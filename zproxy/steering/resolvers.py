"""The resolvers that a pod's apps ask, behind the alias addresses that stand for them (bpf/lib/dns.h).

A DNS server on port 15053 of the straw learns from a query's own destination address (IP_PKTINFO) which
resolver the app meant, and answers from that address; the kernel shows the app the resolver.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.steering import syscall
from zproxy.steering.layout import ALIAS, ORIGIN, RESOLVER, pack_ip, unpack_ip

PREFIX4: Final = "240.15.53.0/24"
"""ZP_ALIAS_IP4."""
PREFIX6: Final = "fd16:9254:7127:1553::/64"
"""ZP_ALIAS_IP6_0 and _1."""
SLOTS: Final = 64
"""ZP_POD_RESOLVERS: how many resolvers of a family a pod may ask before the least used gives way."""


class Resolver(NamedTuple):
    """One resolver of a pod."""

    alias: str
    original: Endpoint
    used_ns: int
    """CLOCK_MONOTONIC of the last query."""


class Resolvers:
    """Reads zp_resolver for one pod. A lookup is one system call, some 2 us."""

    def __init__(self, map_fd: int, cookie: int) -> None:
        """Borrow the map; `cookie` is the pod's namespace."""
        self._map = map_fd
        self._cookie = cookie

    def find(self, alias: str) -> Endpoint | None:
        """Return the resolver that a query to `alias` was meant for, None for one that nobody asked."""
        raw = self._read(alias)
        return None if raw is None else raw.original

    def all(self) -> list[Resolver]:
        """Return the pod's resolvers, in the order of their aliases."""
        return [found for alias in aliases() if (found := self._read(alias)) is not None]

    def _read(self, alias: str) -> Resolver | None:
        key = ALIAS.pack(netns=self._cookie, ip=pack_ip(alias))
        value = syscall.map_lookup(self._map, key, RESOLVER.size)
        if value is None:
            return None
        kept = RESOLVER.unpack(value)
        origin = ORIGIN.unpack(kept["orig"])
        return Resolver(alias, Endpoint(unpack_ip(origin["ip"]), origin["port"]), kept["used_ns"])


def aliases() -> Iterator[str]:
    """Yield every alias address that a pod may have."""
    for number in range(1, SLOTS + 1):
        yield f"240.15.53.{number}"
        yield f"fd16:9254:7127:1553::{number:x}"
