"""Pods that a container runtime makes and ends, as the CNI plugin tells: the commands of its own.

The plugin decides nothing; it hands over what the runtime said. An attachment is NETWORK/CONTAINER/INTERFACE,
by which the runtime means one sandbox of a pod, whatever came before or after it under the same name.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from zproxy.errors import EnrollError
from zproxy.model.addr import canonical_ip
from zproxy.net.netns import Netns
from zproxy.node.control import Command
from zproxy.node.enroll import open_netns
from zproxy.node.manager import Manager
from zproxy.node.records import Record
from zproxy.node.wish import Wish

MAX_WAIT_MS: Final = 60_000
"""For the mesh to learn of a pod; runtimes give up a sandbox after some minutes."""
LOOK_S: Final = 0.02
"""Between looks at the mesh; each is a lookup in a table."""

_log = logging.getLogger("zproxy.node")


class Births:
    """What the plugin asks for. Each command may come again, at any time and in any order."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def commands(self) -> dict[str, Command]:
        """Return the commands under the names that the plugin uses."""
        return {
            "cni_add": self.add,
            "cni_check": self.check,
            "cni_delete": self.delete,
            "cni_collect": self.collect,
        }

    async def add(
        self, pod: str, netns: str, attachment: str, ips: Sequence[str] = (), wait_ms: int = 0
    ) -> dict[str, Any]:
        """Enrol a pod whose namespace is ready and whose first container is not running yet.

        Return whether it is enrolled now, and why. The mesh may take `wait_ms` to learn of it. Raise
        EnrollError when it is to be enrolled and cannot be.
        """
        decided = await self._decided(pod, _canonical(ips), wait_ms)
        if not decided.is_wanted:
            _log.info("born outside the mesh: %s: %s", pod, decided.reason)
            return {"enrolled": False, "reason": decided.reason}
        await self._manager.enroll(pod, netns, attachment=attachment)
        return {"enrolled": True, "reason": decided.reason}

    async def check(self, pod: str, netns: str, ips: Sequence[str] = ()) -> dict[str, Any]:
        """Return whether the pod is as it is to be; raise EnrollError when it is not."""
        with open_netns(pod, netns, None) as handle:
            async with self._manager.lock:
                present = self._manager.pods.get(pod)
                if present is not None and present.netns.key == handle.key:
                    return {"enrolled": True, "reason": f"{pod} is enrolled"}
                refused = self._manager.refused.get(pod)
                if refused is not None:
                    raise EnrollError(f"{pod} is refused: {refused.reason}")
                decided = self._manager.wants(pod, _canonical(ips))
        if not decided.is_wanted:
            return {"enrolled": False, "reason": decided.reason}
        where = "not enrolled" if present is None else f"enrolled in {present.netns.path}, not in {netns}"
        raise EnrollError(f"{decided.reason}, and it is {where}")

    async def delete(self, pod: str, attachment: str, netns: str = "") -> dict[str, Any]:
        """Unenrol the pod if it is this attachment that is enrolled: its name may be another sandbox's."""
        cookie = await asyncio.to_thread(_cookie, netns) if netns else None
        left = await self._manager.leave(pod, lambda record: _is_meant(record, attachment, cookie))
        return {"unenrolled": left}

    async def collect(self, network: str, valid: Sequence[str]) -> dict[str, Any]:
        """Unenrol the pods that were born by `network` and are none of the attachments in `valid`."""
        kept = frozenset(valid)

        def is_stale(record: Record) -> bool:
            return record.attachment.startswith(f"{network}/") and record.attachment not in kept

        names = await self._manager.recorded_names(is_stale)
        return {"unenrolled": [name for name in names if await self._manager.leave(name, is_stale)]}

    async def _decided(self, pod: str, ips: Sequence[str], wait_ms: int) -> Wish:
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(wait_ms, MAX_WAIT_MS) / 1e3
        while True:
            decided = self._manager.wants(pod, ips)
            if not decided.is_early or loop.time() >= ends:
                return decided
            await asyncio.sleep(LOOK_S)


def _is_meant(record: Record, attachment: str, cookie: int | None) -> bool:
    """One that was enrolled by hand has no attachment: then the namespace tells. Istio-cni ends its own."""
    if record.handed:
        return False
    return record.attachment == attachment if record.attachment else record.cookie == cookie


def _cookie(path: str) -> int | None:
    """Return the number of a namespace, None when it has gone."""
    try:
        with Netns.open(path) as netns:
            return netns.cookie()
    except OSError:
        return None


def _canonical(ips: Sequence[str]) -> list[str]:
    try:
        return [canonical_ip(ip) for ip in ips]
    except ValueError as error:
        raise EnrollError(f"the runtime's addresses of the pod are no addresses: {error}") from error
