"""What eBPF holds about a pod: its entry in the node's pinned map zp_pods, and the pod's own links."""

import os
from pathlib import Path
from typing import Final

from zproxy.config import PIN_ROOT
from zproxy.steering.layout import COOKIE, POD, PodEntry
from zproxy.steering.pins import NodePins, entries
from zproxy.steering.syscall import map_lookup, obj_get

MAP: Final = "zp_pods"


def pod_entry(node: str, cookie: int, root: Path = PIN_ROOT) -> tuple[str, ...]:
    """Return what is pinned for the namespace with this cookie as lines; nothing if it is not steered."""
    pins = NodePins(node, root)
    try:
        fd = obj_get(pins.maps / MAP)
    except OSError:
        return ()
    key = COOKIE.pack(cookie=cookie)
    try:
        value = map_lookup(fd, key, POD.size)
    finally:
        os.close(fd)
    if value is None:
        return ()
    entry = PodEntry.decode(key, value)
    egress = f"egress to {entry.ip4 or entry.ip6}:{entry.outbound_port}"
    ingress = f"plain ingress to {entry.plaintext_port}, HBONE {entry.hbone_port}"
    return (
        f"{MAP}[{cookie}]: {entry.name}, {egress}, {ingress}",
        *(_pinned(directory) for directory in (pins.links, pins.pod(cookie))),
    )


def _pinned(directory: Path) -> str:
    return f"links in {directory}: {', '.join(path.name for path in entries(directory)) or '(none)'}"
