"""What the daemons report about pods, connections and tunnels, as values.

The keys are those of the control socket (version 1); a row that lacks one is a bug of the daemon and
raises KeyError.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from zproxy.model.addr import Endpoint, canonical_ip

Row = Mapping[str, Any]


class PodRow(NamedTuple):
    """An enrolled pod."""

    pod: str
    node: str
    ips: tuple[str, ...]
    netns_path: str
    netns: tuple[int, int]
    """(device, inode) of the namespace that the daemon holds."""
    cookie: int
    identity: str
    pid: int
    """The daemon that holds the pod's straw."""

    @classmethod
    def of(cls, row: Row) -> "PodRow":
        """Read one row of the command `pods`."""
        netns = row["netns"]
        return cls(
            pod=row["pod"],
            node=row["node"],
            ips=tuple(canonical_ip(ip) for ip in row["ips"]),
            netns_path=netns["path"],
            netns=(netns["dev"], netns["inode"]),
            cookie=netns["cookie"],
            identity=row["identity"],
            pid=row["pid"],
        )


class ConnectionRow(NamedTuple):
    """One app connection, as the daemon of one side saw it."""

    id: int
    pod: str
    direction: str
    state: str
    src: str
    dst: str
    hbone_addr: str
    src_identity: str
    dst_identity: str
    tunnel: int
    error: str

    @classmethod
    def of(cls, row: Row) -> "ConnectionRow":
        """Read one row of the command `connections`."""
        return cls(*(row[field] for field in cls._fields))


class TunnelRow(NamedTuple):
    """One mTLS and HTTP/2 connection between two straws, as the daemon of one end saw it."""

    id: int
    pod: str
    role: str
    local: str
    remote: str
    src_identity: str
    dst_identity: str
    streams: int
    streams_total: int
    tls: str
    alpn: str

    @classmethod
    def of(cls, row: Row) -> "TunnelRow":
        """Read one row of the command `tunnels`."""
        return cls(*(row[field] for field in cls._fields))

    @property
    def pool_key(self) -> str:
        """What may share this tunnel, where it was dialled: identities, source IP, peer's HBONE address."""
        source = Endpoint.parse(self.local).ip
        return f"{{{self.src_identity}, {self.dst_identity}, {source}, {self.remote}}}"
