"""Pods of a runtime that end, and come back: noticed by the runtime's events, or by asking it every second.

What ends here is never let out into the clear: a pod whose sandbox has ended stays steered until nobody can
enter its namespace any more, and only then it is forgotten. A pod that gets another sandbox, with the same
uid, is the same pod: it is enrolled again as it was. One that is made anew under the old name is another.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from zproxy.cri.sandbox import Brief, short
from zproxy.errors import EventsUnsupported, RuntimeFailed, ZproxyError
from zproxy.net.tasks import spawn
from zproxy.node.manager import Manager
from zproxy.node.pod import Pod
from zproxy.node.records import Record
from zproxy.node.runtime import Asks, RuntimePods

POLL_S: Final = 1.0
"""Between two looks at a runtime without events; a list of 250 sandboxes takes it a few milliseconds."""
CHECK_S: Final = 30.0
"""Between two looks where there are events, since streams break."""
SETTLE_S: Final = 0.05
"""From an event to the look: a pod's end is several."""
CALM_S: Final = 3.0
"""How long the runtime is asked every second after a stream of events has begun."""
AWAIT_S: Final = 600.0
"""How long a pod whose sandbox is gone may take to come back; kubelet's longest back-off is five minutes."""
MAX_AWAITED: Final = 1024

_log = logging.getLogger("zproxy.runtime")


class RuntimeWatch:
    """Lives on the event loop; `run` is its whole life. Asks nobody while no pod of a runtime is enrolled."""

    def __init__(self, pods: RuntimePods, manager: Manager, collect: Callable[[], Awaitable[None]]) -> None:
        """`collect` forgets the pods whose namespace nobody can enter any more."""
        self._pods = pods
        self._manager = manager
        self._collect = collect
        self._awaited: dict[str, tuple[Record, float]] = {}
        """Uid → how the pod was enrolled, and until when it is waited for."""
        self._ended: set[str] = set()
        """Sandboxes whose end was told already."""
        self._said = ""
        """Why the runtime could not be asked, so that it is said once."""
        self._complaints: dict[str, str] = {}
        """Likewise why a pod is not enrolled again."""
        self._wake = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._has_events = True
        """Until the runtime says that it has none."""
        self._calm_from = 0.0
        """On the loop's clock: until then what happened before the stream began may still be unseen."""
        manager.on_gone = self._on_gone
        pods.on_taken = self._wake.set

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                client = self._pods.client() if self._is_needed() else None
                if client is not None:
                    self._listen(client)
                    await self._guarded(client)
                await self._pause(is_idle=client is None)
        finally:
            if self._reader is not None:
                self._reader.cancel()

    def _is_needed(self) -> bool:
        return bool(self._awaited) or any(pod.origin.sandbox for pod in self._manager.pods.values())

    async def _pause(self, *, is_idle: bool) -> None:
        is_heard = self._reader is not None and not self._reader.done()
        is_calm = is_heard and asyncio.get_running_loop().time() > self._calm_from
        is_patient = is_idle or (is_calm and not self._ended and not self._awaited)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), CHECK_S if is_patient else POLL_S)
            await asyncio.sleep(SETTLE_S)
        self._wake.clear()

    def _listen(self, client: Asks) -> None:
        if self._has_events and (self._reader is None or self._reader.done()):
            self._reader = spawn(self._read(client), "runtime-events")
            self._calm_from = asyncio.get_running_loop().time() + CALM_S

    async def _read(self, client: Asks) -> None:
        try:
            async for _ in client.events():
                self._wake.set()
        except EventsUnsupported:
            self._has_events = False
        except RuntimeFailed as error:
            _log.debug("the stream of events broke: %s", error)

    async def _guarded(self, client: Asks) -> None:
        """A runtime that is away leaves everything as it is: that it cannot be asked does not end a pod."""
        try:
            await self._look(await client.sandboxes())
            self._said = ""
        except ZproxyError as error:
            if str(error) != self._said:
                self._said = str(error)
                _log.warning("pods that end are found late: %s", error)
        except Exception:
            _log.exception("the watch over the runtime stumbled and goes on")

    async def _look(self, listed: list[Brief]) -> None:
        ready = {each.id: each for each in listed if each.is_ready}
        ended = [pod for pod in self._manager.pods.values() if _is_of_runtime(pod, ready)]
        for pod in ended:
            if pod.origin.sandbox not in self._ended:
                self._ended.add(pod.origin.sandbox)
                _log.info("the sandbox %s of %s has ended", short(pod.origin.sandbox), pod.name)
        if ended:
            await self._collect()
        self._ended &= {pod.origin.sandbox for pod in self._manager.pods.values()}
        await self._take_again(list(ready.values()))

    async def _take_again(self, ready: list[Brief]) -> None:
        now = asyncio.get_running_loop().time()
        for uid, (record, until) in tuple(self._awaited.items()):
            found = [each for each in ready if each.uid == uid and each.pod == record.pod]
            if record.pod in self._manager.pods or now > until:
                self._await_no_more(record)
            elif len(found) == 1:
                await self._again(record, found[0])

    async def _again(self, record: Record, found: Brief) -> None:
        try:
            await self._pods.again(record, found.id)
        except ZproxyError as error:
            if str(error) != self._complaints.get(record.pod):
                self._complaints[record.pod] = str(error)
                _log.warning(
                    "not enrolled again in its new sandbox, which is tried on: %s: %s", record.pod, error
                )
            return
        self._await_no_more(record)
        _log.info("enrolled again in its new sandbox %s: %s", short(found.id), record.pod)

    def _await_no_more(self, record: Record) -> None:
        self._awaited.pop(record.origin.uid, None)
        self._complaints.pop(record.pod, None)

    def _on_gone(self, record: Record) -> None:
        if record.origin.uid and len(self._awaited) < MAX_AWAITED:
            until = asyncio.get_running_loop().time() + AWAIT_S
            self._awaited[record.origin.uid] = (record, until)
            self._wake.set()


def _is_of_runtime(pod: Pod, ready: dict[str, Brief]) -> bool:
    """Tell whether a pod was enrolled from the runtime, which has its sandbox no longer."""
    return bool(pod.origin.sandbox) and pod.origin.sandbox not in ready
