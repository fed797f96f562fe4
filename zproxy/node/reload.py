"""The mesh of a node, and how another one takes its place while connections go on: all of it, or nothing."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from zproxy.errors import ConfigError
from zproxy.node.workers import PlacedStraw, PodWorker
from zproxy.sources import file
from zproxy.state.store import Mesh

_log = logging.getLogger("zproxy.node")


class CurrentMesh:
    """Called, it returns the snapshot that decides about new connections; any thread may call it."""

    def __init__(self, path: Path, mesh: Mesh) -> None:
        self._path = path
        self._mesh = mesh

    def __call__(self) -> Mesh:
        """Return the snapshot; it NEVER changes, another one takes its place."""
        return self._mesh

    async def reload(self, straws: Iterable[PlacedStraw], workers: Sequence[PodWorker]) -> None:
        """Read the file again; when it is bad, say so and keep what there is. One call at a time.

        What is open goes on, but for tunnels to pods that left or are others now. An enrolled pod stays
        what it was enrolled as, until it is unenrolled.
        """
        try:
            mesh = await asyncio.to_thread(file.load, self._path)
        except ConfigError as error:
            _log.error("the mesh stays as it was: %s", error)
            return
        former, self._mesh = self._mesh, mesh
        for straw in straws:
            await straw.on_mesh(former)
        for worker in workers:
            await worker.on_mesh(mesh.workloads)
        _log.info("the mesh was read again and has %d workloads", len(mesh.workloads))
