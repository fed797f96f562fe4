"""What the programs in the kernel did and hold, as metric families."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from zproxy.errors import SteeringError
from zproxy.observe.metrics import OWN, Family
from zproxy.steering import decoded
from zproxy.steering.decoded import COUNTERS, NodeMaps, Row
from zproxy.steering.layout import MAPS

_log = logging.getLogger("zproxy.node")

HELP: Final = {
    "open": "steered client sockets of the pod that are open",
    "opened": "connects of the pod that were steered",
    "refused": "connects of the pod that were refused, and clear-text TCP that was dropped",
    "inbound": "inbound flows recorded for the pod's plaintext listener",
    "dns": "DNS queries of the pod that were captured",
    "udp_packets": "UDP packets of the pod that left in the clear, or would have",
    "udp_bytes": "bytes of these, IP headers included",
    "udp_blocked": "UDP packets of the pod that were not let out",
}
"""Counter of zp_podstat → what it counts."""


async def steering_families(node: str) -> list[Family]:
    """Read the node's pinned maps; in a thread, since a full map takes milliseconds.

    None of them when the pins are gone: the data plane's own figures are wanted all the more then.
    """
    try:
        return await asyncio.to_thread(_read, node)
    except SteeringError as error:
        _log.warning("metrics of the eBPF programs are missing: %s", error)
        return []


def _read(node: str) -> list[Family]:
    with decoded.opened(node) as maps:
        return families(decoded.stats(maps), decoded.pods(maps), decoded.occupancy(maps) + _pods_map(maps))


def _pods_map(maps: NodeMaps) -> list[Row]:
    used = sum(1 for _ in maps.elements("zp_pods"))
    return [{"map": "zp_pods", "entries": used, "max_entries": MAPS["zp_pods"].max_entries}]


def families(stats: Sequence[Row], pods: Sequence[Row], occupancy: Sequence[Row]) -> list[Family]:
    """Return the families of these views."""
    steering = Family(
        "zproxy_steering",
        f"{OWN}decisions of the eBPF programs, by reason",
        ("reason",),
        [((row["reason"],), row["count"]) for row in stats],
    )
    of_pods = [
        Family(
            f"zproxy_pod_{name}" if name != "open" else "zproxy_pod_connections_open",
            f"{OWN}{HELP[name]}",
            ("pod",),
            [((row["pod"],), row["counters"][name]) for row in pods],
            is_gauge=name == "open",
        )
        for name in COUNTERS
    ]
    ports = Family(
        "zproxy_pod_source_ports",
        f"{OWN}source ports that the pod's outbound connections share",
        ("pod",),
        [((row["pod"],), row["source_ports"]) for row in pods if row["source_ports"]],
        is_gauge=True,
    )
    entries = Family(
        "zproxy_map_entries",
        f"{OWN}entries in a BPF map",
        ("map",),
        [((row["map"],), row["entries"]) for row in occupancy],
        is_gauge=True,
    )
    limits = Family(
        "zproxy_map_max_entries",
        f"{OWN}entries that a BPF map has room for",
        ("map",),
        [((row["map"],), row["max_entries"]) for row in occupancy],
        is_gauge=True,
    )
    return [steering, *of_pods, ports, entries, limits]
