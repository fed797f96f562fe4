"""Everything that a daemon does with Kubernetes, put together."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from zproxy.kube.api import KubeApi
from zproxy.kube.cluster import Cluster
from zproxy.kube.controller import Controller, Enroller, FindSandboxes, Found
from zproxy.kube.informer import Api
from zproxy.kube.sandboxes import sandboxes
from zproxy.kube.translate import Place
from zproxy.net.tasks import in_thread, spawn
from zproxy.sources.pace import Pause
from zproxy.state.store import Records


class OpenApi(Api, Protocol):
    """An Api that has to be opened first, and closed."""

    async def open(self) -> None:
        """Read the configuration; raise ConfigError."""

    async def close(self) -> None:
        """End all connections."""


class Following:
    """A source of the mesh, and a controller of this node's pods. `run` is its whole life."""

    def __init__(
        self,
        api: OpenApi,
        place: Place,
        enroller: Enroller,
        find: FindSandboxes,
        on_change: Callable[[], object],
    ) -> None:
        """`on_change` is called when the mesh is to be read again; say `taken` when it was."""
        self._api = api
        self._cluster = Cluster(api, place, on_change)
        self._controller = Controller(self._cluster, api, enroller, find)
        self._is_taken = asyncio.Event()

    async def open(self) -> None:
        """Read the configuration; raise ConfigError."""
        await self._api.open()

    def reading(self) -> Callable[[Pause], Records]:
        """Return what makes the records of the mesh, in a thread."""
        return self._cluster.reading()

    def taken(self) -> None:
        """The mesh has been read: pods that are to be enrolled are in it."""
        if self._cluster.is_synced:
            self._is_taken.set()
            self._controller.look()

    async def first(self, seconds: float) -> bool:
        """Wait until all of Kubernetes was heard and taken, or for `seconds`; return whether it was."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_taken.wait(), seconds)
        return self._is_taken.is_set()

    async def run(self) -> None:
        """Follow until cancelled."""
        tasks = [
            spawn(self._cluster.run(), "kubernetes"),
            spawn(self._controller.run(), "kubernetes-pods"),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._api.close()


def follow(
    kubeconfig: Path | None, node: str, domain: str, enroller: Enroller, on_change: Callable[[], object]
) -> Following:
    """Return what follows the cluster that `kubeconfig` leads to, or without one the pod's own, for `node`.

    Names of the cluster's services end in `domain`.
    """
    return Following(KubeApi(kubeconfig), Place(node, domain), enroller, _find, on_change)


async def _find(uids: Collection[str]) -> dict[str, Found]:
    found = await in_thread(lambda: sandboxes(uids))
    return {uid: Found(pid) for uid, pid in found.items()}
