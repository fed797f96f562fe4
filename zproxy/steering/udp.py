"""UDP that pods send in the clear, as zp_egress recorded it in zp_udp. No daemon is needed to read it."""

from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.errors import ConfigError, SteeringError
from zproxy.steering import syscall
from zproxy.steering.handles import MAP, pinned_nodes, pins_named
from zproxy.steering.layout import COOKIE, UDP, UDP_KEY, PodEntry, unpack_ip
from zproxy.steering.objects import Objects, Unusable, open_maps
from zproxy.steering.pins import NodePins

_NAME_SIZE: Final = 63
"""Bytes of a pod's name in zp_pods."""


class UdpFlow(NamedTuple):
    """What went from one pod to one destination. Times are CLOCK_MONOTONIC's."""

    node: str
    pod: str
    """Empty when its namespace is enrolled no more."""
    ip: str
    port: int | None
    """None for clients of the pod's own server, and for later fragments, which have no port."""
    served_port: int | None
    """For clients of the pod's own server: the port that it answers from."""
    packets: int
    bytes: int
    """Of IP packets, headers included."""
    blocked: int
    """Of these packets: how many were dropped."""
    first_ns: int
    last_ns: int


def flows(node: str | None = None, pod: str | None = None, root: Path = PIN_ROOT) -> list[UdpFlow]:
    """Return the flows of a node or of all that have pins here, the one that was seen last at the end.

    `pod` leaves those of one pod. Raise ConfigError when no node steers it, SteeringError when there is
    nothing to read, or another version's.
    """
    pins_named(MAP, "zp_udp", node, root)
    nodes = [node] if node else pinned_nodes(root)
    wanted = None if pod is None else _cut(pod)
    found: list[UdpFlow] = []
    known: set[str] = set()
    for each in nodes:
        objects = _open(each, root)
        try:
            names = _names(objects)
            known.update(names.values())
            found += _flows_in(objects, each, names)
        finally:
            objects.close()
    if wanted is not None and wanted not in known:
        raise ConfigError(
            f"unknown pod {pod}: none of that name is enrolled with {', '.join(nodes)}; `zproxy pods` lists "
            "those that are"
        )
    return sorted((flow for flow in found if wanted in (None, flow.pod)), key=lambda flow: flow.last_ns)


def forget(objects: Objects, cookie: int) -> None:
    """Delete what is recorded of one pod."""
    table = objects.maps["zp_udp"]
    whose = COOKIE.pack(cookie=cookie)
    for key in [key for key, _ in objects.elements("zp_udp") if key.startswith(whose)]:
        syscall.map_delete(table, key)


def _flows_in(objects: Objects, node: str, names: dict[int, str]) -> list[UdpFlow]:
    return [_decode(node, names, key, value) for key, value in objects.elements("zp_udp")]


def _decode(node: str, names: dict[int, str], key: bytes, value: bytes) -> UdpFlow:
    place, seen = UDP_KEY.unpack(key), UDP.unpack(value)
    return UdpFlow(
        node=node,
        pod=names.get(place["netns"], ""),
        ip=unpack_ip(place["dst_ip"]),
        port=place["dst_port"] or None,
        served_port=place["src_port"] or None,
        packets=seen["packets"],
        bytes=seen["bytes"],
        blocked=seen["blocked"],
        first_ns=seen["first_ns"],
        last_ns=seen["last_ns"],
    )


def _open(node: str, root: Path) -> Objects:
    try:
        return open_maps(NodePins(node, root))
    except Unusable as finding:
        raise SteeringError(
            f"{finding}: it is another version's, or half-written; read it with the version that made it"
        ) from finding


def _names(objects: Objects) -> dict[int, str]:
    entries = (PodEntry.decode(key, value) for key, value in objects.elements("zp_pods"))
    return {entry.cookie: entry.name for entry in entries}


def _cut(name: str) -> str:
    """Return a pod's name as zp_pods has it."""
    return name.encode()[:_NAME_SIZE].decode(errors="replace")
