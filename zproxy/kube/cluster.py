"""All kinds together: one snapshot of what Kubernetes has, and a sign when there is another one.

Changes are taken in batches. After one the next waits until nine times as long has passed as the former took:
a cluster in which pods come and go all the time costs a tenth of a core, and one that is quiet costs nothing.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from zproxy.kube.informer import Api, Informer
from zproxy.kube.objects import KINDS, NAMESPACES, NODES, PODS, SERVICES, SLICES
from zproxy.kube.translate import Place, Snapshot, records_of
from zproxy.net.tasks import spawn
from zproxy.sources.pace import Pause
from zproxy.state.store import Records

BATCH_S: Final = 0.05
"""From the first change to the sign: changes come in bursts."""
SHARE: Final = 9
"""Times that a batch took, which pass before the next."""


class Cluster:
    """Lives on the event loop. `run` is its whole life."""

    def __init__(self, api: Api, place: Place, on_change: Callable[[], object]) -> None:
        """`on_change` is called when `reading` would return other records than before."""
        self.place = place
        self._informers: dict[str, Informer[Any]] = {
            kind.name: Informer(kind, api, self._changed) for kind in KINDS
        }
        self._on_change = on_change
        self._news = asyncio.Event()
        self._took_s = 0.0

    @property
    def is_synced(self) -> bool:
        """Whether everything was heard once; before that nothing is told."""
        return all(each.ledger.is_synced for each in self._informers.values())

    def snapshot(self) -> Snapshot:
        """Return what is known now; later changes do not show in it."""
        kinds = (PODS, NAMESPACES, NODES, SERVICES, SLICES)
        return Snapshot(*(dict(self._informers[kind.name].ledger.objects) for kind in kinds))

    def reading(self) -> Callable[[Pause], Records]:
        """Return what makes the records of what is known now, in a thread; none before all is heard."""
        if not self.is_synced:
            return lambda _: Records()
        snapshot = self.snapshot()

        def read(pause: Pause) -> Records:
            began = perf_counter()
            records = records_of(snapshot, self.place, pause)
            self._took_s = perf_counter() - began
            return records

        return read

    async def run(self) -> None:
        """Listen until cancelled."""
        tasks = [spawn(each.run(), f"inform-{name}") for name, each in self._informers.items()]
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(max(BATCH_S, SHARE * self._took_s))
                self._news.clear()
                self._on_change()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _changed(self) -> None:
        if self.is_synced:
            self._news.set()
