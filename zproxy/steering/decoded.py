"""A node's maps as an operator reads them: names of pods, text addresses, ages. No daemon is needed.

Each view is a list of rows with stable keys, from the maps that are pinned. It is true at the moment when it
is taken, and the kernel may have gone on since. What a map does not know is None.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from zproxy.config import PIN_ROOT
from zproxy.errors import SteeringError
from zproxy.model.addr import Endpoint
from zproxy.steering import batch, syscall
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.handles import MAP, pins_named
from zproxy.steering.info import map_info
from zproxy.steering.layout import (
    COOKIE,
    FLOW,
    INDEX,
    MAPS,
    ORIGIN,
    PODSTAT,
    REASONS,
    TUPLE_KEY,
    ConnEntry,
    PodEntry,
    unpack_ip,
)
from zproxy.steering.meanings import MEANINGS

Row = dict[str, Any]
UNKNOWN: Final = "?"
"""In place of a pod's name when its namespace is not enrolled any more."""
NS: Final = 1_000_000_000
LRU_MAPS: Final = ("zp_conn", "zp_tuple", "zp_in", "zp_udp", "zp_probe", "zp_begun")
COUNTERS: Final = (
    "open",
    "opened",
    "refused",
    "inbound",
    "dns",
    "udp_packets",
    "udp_bytes",
    "udp_blocked",
)
"""Of zp_podstat, in the order of `struct zp_podstat`."""


class NodeMaps:
    """The pinned maps of one node, opened as they are asked for."""

    def __init__(self, node: str, root: Path = PIN_ROOT) -> None:
        self.node = node
        self._root = root
        self._fds: dict[str, int] = {}
        self._names: dict[int, str] | None = None

    def close(self) -> None:
        """Drop the descriptors."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def fd(self, name: str) -> int:
        """Open the node's map; raise SteeringError unless it is there and shaped as this version's."""
        if name not in self._fds:
            path = pins_named(MAP, name, self.node, self._root)[0]
            try:
                fd = syscall.obj_get(path)
            except OSError as error:
                raise SteeringError(f"cannot open {path}: {os.strerror(error.errno or 0)}") from error
            self._fds[name] = fd
            if not MAPS[name].matches(name, map_info(fd)):
                raise SteeringError(
                    f"{path} is another version's: read it with that version, or with `zproxy bpf map dump`"
                )
        return self._fds[name]

    def elements(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of every element of a hash map."""
        spec = MAPS[name]
        return batch.elements(self.fd(name), spec.key.size, spec.value.size)

    def lookup(self, name: str, key: bytes) -> bytes | None:
        """Return one value."""
        return syscall.map_lookup(self.fd(name), key, MAPS[name].value.size)

    def pod_name(self, cookie: int) -> str:
        """Return whose namespace has this cookie."""
        if self._names is None:
            entries = (PodEntry.decode(key, value) for key, value in self.elements("zp_pods"))
            self._names = {entry.cookie: entry.name for entry in entries}
        return self._names.get(cookie, UNKNOWN)


@contextmanager
def opened(node: str, root: Path = PIN_ROOT) -> Iterator[NodeMaps]:
    """Open a node's maps for the block."""
    maps = NodeMaps(node, root)
    try:
        yield maps
    finally:
        maps.close()


def pods(maps: NodeMaps) -> list[Row]:
    """Return a row per pod that is steered now, with its counters."""
    entries = sorted(PodEntry.decode(key, value) for key, value in maps.elements("zp_pods"))
    return [_pod(maps, entry) for entry in entries]


def _pod(maps: NodeMaps, entry: PodEntry) -> Row:
    raw = maps.lookup("zp_podstat", entry.key())
    counters = PODSTAT.unpack(raw or bytes(PODSTAT.size))
    listener = maps.lookup("zp_lsn", INDEX.pack(index=entry.slot))
    return {
        "pod": entry.name,
        "netns_cookie": entry.cookie,
        "uid": entry.uid,
        "ips": [ip for ip in (entry.ip4, entry.ip6) if ip],
        "outbound_port": entry.outbound_port,
        "plaintext_port": entry.plaintext_port,
        "hbone_port": entry.hbone_port,
        "dns_port": entry.dns_port,
        **entry.options.as_json(),
        "slot": entry.slot,
        "listener_cookie": COOKIE.unpack(listener)["cookie"] if listener else None,
        "generation": entry.generation,
        "counters": {name: counters[name] for name in COUNTERS},
        "source_ports": counters["ports"] or None,
    }


def conns(maps: NodeMaps, now_ns: int | None = None) -> list[Row]:
    """Return a row per steered client socket that its app has not closed, oldest first."""
    now = time.monotonic_ns() if now_ns is None else now_ns
    found = sorted(
        (ConnEntry.decode(key, value) for key, value in maps.elements("zp_conn")),
        key=lambda conn: conn.started_ns,
    )
    return [
        {
            "pod": maps.pod_name(conn.netns),
            "src": str(conn.source) if conn.source else None,
            "dst": str(conn.original),
            "dst_ip": conn.original.ip,
            "age_s": round(max(0, now - conn.started_ns) / NS, 1),
            "socket_cookie": conn.cookie,
            "netns_cookie": conn.netns,
        }
        for conn in found
    ]


def tuples(maps: NodeMaps) -> list[Row]:
    """Return a row per flow whose original destination no acceptor has taken up yet."""
    rows = []
    for key, value in maps.elements("zp_tuple"):
        place, origin = TUPLE_KEY.unpack(key), ORIGIN.unpack(value)
        source, via = _ends(place["flow"])
        rows.append(
            {
                "pod": maps.pod_name(place["netns"]),
                "src": str(source),
                "via": str(via),
                "dst": str(Endpoint(unpack_ip(origin["ip"]), origin["port"])),
                "dst_ip": unpack_ip(origin["ip"]),
                "netns_cookie": place["netns"],
            }
        )
    return sorted(rows, key=lambda row: (row["pod"], row["src"]))


def stats(maps: NodeMaps) -> list[Row]:
    """Return a row per reason with how often the programs had it, on each CPU and in all."""
    cpus = possible_cpus()
    rows = []
    for number, reason in enumerate(REASONS):
        size = COOKIE.size * cpus
        raw = syscall.map_lookup(maps.fd("zp_stats"), INDEX.pack(index=number), size) or bytes(size)
        each = [COOKIE.unpack(raw[at : at + 8])["cookie"] for at in range(0, size, 8)]
        rows.append({"reason": reason, "count": sum(each), "cpus": each, "meaning": MEANINGS[reason]})
    return rows


def occupancy(maps: NodeMaps) -> list[Row]:
    """Return a row per map that forgets its oldest entry when it is full: how full it is."""
    rows = []
    for name in LRU_MAPS:
        limit = MAPS[name].max_entries
        used = sum(1 for _ in maps.elements(name))
        rows.append({"map": name, "entries": used, "max_entries": limit, "percent": 100 * used // limit})
    return rows


def _ends(raw: bytes) -> tuple[Endpoint, Endpoint]:
    flow = FLOW.unpack(raw)
    source = Endpoint(unpack_ip(flow["src_ip"]), flow["src_port"])
    return source, Endpoint(unpack_ip(flow["dst_ip"]), flow["dst_port"])
