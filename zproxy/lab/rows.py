"""What the daemons report about pods, connections and tunnels, as values.

The keys are those of the control socket (version 1); a row that lacks one is a bug of the daemon and
raises KeyError.
"""

from collections.abc import Iterable, Mapping
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
    dns: bool = False
    """Whether the pod's DNS goes to its straw."""

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
            dns=row["dns"],
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


class ServiceRow(NamedTuple):
    """A service of the mesh: names and virtual addresses for a pod."""

    namespace: str
    name: str
    hostname: str
    vips: tuple[str, ...]
    ports: tuple[tuple[int, int], ...]
    """Of the service, and of the pod behind it."""

    @classmethod
    def before(cls, pod: str, services: Iterable[Row], workloads: Iterable[Row]) -> "ServiceRow | None":
        """Read the commands `services` and `workloads`: the service that has `pod` for its only endpoint.

        Return None where there is none: of several endpoints nobody knows who will answer.
        """
        mine: set[str] = set()
        for row in workloads:
            if f"{row['namespace']}/{row['name']}" == pod:
                mine.update(row["services"])
        for row in services:
            if f"{row['namespace']}/{row['hostname']}" in mine and row["endpoints"] == "1/1":
                pairs = (text.split(":") for text in row["ports"])
                return cls(
                    namespace=row["namespace"],
                    name=row["name"],
                    hostname=row["hostname"],
                    vips=tuple(canonical_ip(vip) for vip in row["vip"] if "/" not in vip),
                    ports=tuple((int(port), int(target)) for port, target in pairs),
                )
        return None

    def names(self, namespace: str) -> tuple[str, ...]:
        """Return what programs of a pod in `namespace` may call it, by the search list of Kubernetes."""
        short = (self.name,) if namespace == self.namespace else ()
        return *short, f"{self.name}.{self.namespace}", self.hostname
