"""Tell before it hurts: maps that will soon forget entries, pods that will soon have no source port left."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from zproxy.errors import SteeringError
from zproxy.steering import decoded
from zproxy.steering.decoded import Row

FULL_PERCENT: Final = 80
"""The kernel takes the oldest entry of a full map; at four fifths there is still time to act."""
CALM_PERCENT: Final = 70
"""Below this an alarm is over; in between it stays as it is, so that it does not flap."""

LOOK_S: Final = 10.0
"""How long it takes to notice; full maps cost some 20 ms to count, which is then 0.2 % of a core."""
EFFECT: Final[Mapping[str, str]] = {
    "zp_conn": "`zproxy bpf dump conns` does not show the oldest connection any more",
    "zp_tuple": "the oldest connection that the straw has not accepted yet is reset",
    "zp_in": "inbound packets are dropped, and sent again by their peers",
    "zp_udp": "`zproxy udp` does not show the oldest destination any more",
    "zp_probe": "the oldest of kubelet's probes goes through the straw",
    "zp_begun": "the oldest connect from before its pod was enrolled is lost unless it has its answer",
}
"""Map → what it costs when it is full."""

_log = logging.getLogger("zproxy.node")


class Pressure:
    """Looks at what can run out and says so once, when it begins and when it is over."""

    def __init__(self) -> None:
        self._alarms: set[str] = set()

    async def watch(self, node: str) -> None:
        """Look at the pinned maps of `node` for as long as the daemon lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.judge(*await asyncio.to_thread(_read, node))
            except (SteeringError, OSError) as error:
                _log.warning("cannot see how full the maps are: %s", error)

    def judge(self, maps: Sequence[Row], pods: Sequence[Row]) -> None:
        """Log what has changed for the worse or the better; the rows are those of the decoded views."""
        for row in maps:
            self._judge(
                row["map"],
                row["percent"],
                f"map {row['map']} holds {row['entries']} of {row['max_entries']} entries; when it is full, "
                f"{EFFECT[row['map']]}",
            )
        for row in pods:
            if row["source_ports"]:
                taken = row["counters"]["open"]
                self._judge(
                    row["pod"],
                    100 * taken // row["source_ports"],
                    f"{row['pod']} has {taken} open outbound connections, and source ports for "
                    f"{row['source_ports']}; widen net.ipv4.ip_local_port_range in the pod",
                )

    @property
    def alarms(self) -> list[str]:
        """What is scarce now: names of maps and pods, sorted."""
        return sorted(self._alarms)

    def _judge(self, name: str, percent: int, sentence: str) -> None:
        if percent >= FULL_PERCENT and name not in self._alarms:
            self._alarms.add(name)
            _log.warning("%s", sentence)
        elif percent < CALM_PERCENT and name in self._alarms:
            self._alarms.remove(name)
            _log.info("%s is calm again: %s %% in use", name, percent)


def _read(node: str) -> tuple[list[Row], list[Row]]:
    with decoded.opened(node) as maps:
        return decoded.occupancy(maps), decoded.pods(maps)
