"""The mesh of a node, and how another one takes its place while connections go on: all of it, or nothing."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final

from zproxy.errors import ConfigError, WorkerFailed
from zproxy.net.tasks import in_thread
from zproxy.node.workers import PlacedStraw, PodWorker
from zproxy.sources import file
from zproxy.sources.pace import Pause, considerate
from zproxy.state.dangling import dangling
from zproxy.state.policy import prepare
from zproxy.state.store import Change, Mesh, Records

LOOK_S: Final = 0.5
"""Between looks at the file. A change is taken when two looks see the same, so within twice this."""

NAMED: Final = 20
"""References that lead nowhere and are named in the log at a time."""

Stamp = tuple[int, int, int, int] | None
"""What tells one state of a file from another; None while it cannot be looked at."""

Straws = Callable[[], Awaitable[Sequence[PlacedStraw]]]
"""Returns those that there are, once nobody is being enrolled."""

_log = logging.getLogger("zproxy.node")


def stamp_of(path: Path) -> Stamp:
    """Return the state of the file that `path` leads to; a link that is turned elsewhere is a change."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


Reading = Callable[[Pause], Records]
"""Makes records, in a thread; raises ConfigError when they are bad."""


class CurrentMesh:
    """Called, it returns the snapshot that decides about new connections; any thread may call it."""

    def __init__(self, path: Path | None, mesh: Mesh, stamp: Stamp = None) -> None:
        """Begin with `mesh`, which `path` described when it had the state `stamp`; None is no file."""
        self._path = path
        self._mesh = mesh
        self._stamp = stamp
        self.other: Callable[[], Reading] | None = None
        """A source beside the file, or instead of one: asked on the event loop, read in a thread. Of two
        records with one key the file's counts."""
        self._kept: tuple[Stamp, Records] | None = None
        """What the file said when it was good last, kept where another source changes more often."""
        self.behind: dict[str, str] = {}
        """Pods and workers that stumbled over the mesh that holds, and over what; tried again at the next."""
        prepare(mesh)

    def __call__(self) -> Mesh:
        """Return the snapshot; it NEVER changes, another one takes its place."""
        return self._mesh

    async def watch(self, is_old: asyncio.Event) -> None:
        """Set `is_old` whenever the file has become another and stays so for a moment."""
        path, before = self._path, self._stamp
        while path is not None:
            await asyncio.sleep(LOOK_S)
            now = await in_thread(lambda: stamp_of(path))
            if now == before and now != self._stamp:
                is_old.set()
            before = now

    def warn(self) -> None:
        """Say in the log which references of the mesh lead nowhere: a line for each, and not too many."""
        lines = dangling(self._mesh)
        for line in islice(lines, NAMED):
            _log.warning("%s: %s", self._path or "the mesh", line)
        more = sum(1 for _ in lines)
        if more:
            _log.warning("%s: %d more references lead nowhere", self._path or "the mesh", more)

    async def reload(self, straws: Straws, workers: Sequence[PodWorker]) -> None:
        """Read the sources again; when one is bad, say so and keep what there is. One call at a time.

        `straws` is asked when the new mesh holds: whoever has a straw by then may have used the old one.

        Open connections are decided again by the new mesh; what it still allows goes on. An enrolled pod
        keeps the identity that it was enrolled with, until it is unenrolled.

        Whoever fails at that is told in the log and in `behind`, and keeps nobody else from it. Raise
        WorkerFailed: then the daemon ends.
        """
        former = self._mesh
        try:
            readings = self._readings()
            mesh, change = await in_thread(lambda: _read(readings, former))
        except ConfigError as error:
            _log.error("the mesh stays as it was: %s", error)
            return
        except Exception:  # whatever it stumbled over, the next file may be another
            _log.exception("the mesh stays as it was: it could not be read")
            return
        self._mesh = mesh
        were_behind, self.behind = self.behind, {}
        if were_behind or not change.is_empty:
            self.warn()
            for straw in await straws():
                await self._reach(straw.name, straw.on_mesh(former))
        for worker in workers:
            await self._reach(f"worker {worker.number}", worker.on_mesh(mesh.workloads))
        level = logging.DEBUG if self.other is not None and change.is_empty else logging.INFO
        _log.log(level, "the mesh was read again and has %s; %s", _sizes(mesh), _summary(change))

    def _readings(self) -> list[Reading]:
        readings = [] if self.other is None else [self.other()]
        if self._path is not None:
            self._stamp = stamp_of(self._path)
            readings.append(partial(file.read, self._path) if self.other is None else self._of_file)
        return readings

    def _of_file(self, pause: Pause) -> Records:
        """Return what the file says, read again if it is another; a bad one holds up no other source."""
        assert self._path is not None
        if self._kept is not None and self._kept[0] == self._stamp:
            return self._kept[1]
        try:
            records = file.read(self._path, pause)
        except ConfigError as error:
            if self._kept is None:
                raise
            _log.error("what the file says stays as it was: %s", error)
            records = self._kept[1]
        self._kept = self._stamp, records
        return records

    async def _reach(self, who: str, work: Awaitable[None]) -> None:
        """Let one have the new mesh; what goes wrong there is its own affair, unless its worker is lost."""
        try:
            await work
        except WorkerFailed:
            raise
        except Exception as error:
            self.behind[who] = f"{type(error).__name__}: {error}"
            _log.exception("%s stumbled over the new mesh; what it has open may go on as before", who)


def _read(readings: Sequence[Reading], former: Mesh) -> tuple[Mesh, Change]:
    with considerate() as pause:
        kinds = zip(*(reading(pause) for reading in readings), strict=True)
        change = Change.to(Records(*(tuple(chain.from_iterable(kind)) for kind in kinds)), former)
    mesh = former if change.is_empty else former.changed(change)
    prepare(mesh)
    return mesh, change


def _sizes(mesh: Mesh) -> str:
    return f"{len(mesh.workloads)} workloads, {len(mesh.services)} services and {len(mesh.policies)} policies"


def _summary(change: Change) -> str:
    kinds = ("workloads", "services", "policies")
    new = [f"{len(found)} {kind}" for kind, found in zip(kinds, change[:3], strict=True) if found]
    gone = [f"{len(found)} {kind}" for kind, found in zip(kinds, change[3:], strict=True) if found]
    parts = [f"{', '.join(found)} {what}" for found, what in ((new, "new or other"), (gone, "gone")) if found]
    return "; ".join(parts) or "nothing in it has changed"
