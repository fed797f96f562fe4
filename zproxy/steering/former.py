"""Maps of another layout, left by another version: they steer on until this version has taken up their pods.

The trees of both versions are attached at a time. A pod belongs to whichever has it in zp_pods: the older one
first, then for a moment both, then this one. At no moment does its traffic pass unsteered; a connection
that falls into the moment with both is reset. Of an older map only two things are relied upon: that
zp_pods is called so and that its keys are netns cookies, which is so in every layout.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from zproxy.errors import SteeringError
from zproxy.steering import links, syscall
from zproxy.steering.layout import COOKIE
from zproxy.steering.pins import NodePins, entries, remove_tree

_log = logging.getLogger(__name__)


def set_aside(pins: NodePins) -> None:
    """Move the node's tree to where it steers on beside a new one; raise SteeringError when one is there.

    Pins are names only: what they hold neither stops nor starts. The maps go last, because a tree without
    maps counts as none and would be cleared away: a move that is cut off is finished by the next start.
    """
    if pins.former.maps.exists():
        raise SteeringError(
            f"{pins.former.directory} holds the pods of a third version; unenroll them with a version that "
            "steers them, or drop their steering with `rm -r` on that directory"
        )
    pins.former.directory.mkdir(mode=0o700, exist_ok=True)
    for here, there in reversed(list(zip(pins.parts(), pins.former.parts(), strict=True))):
        if here.exists():
            here.rename(there)


class Former:
    """The tree that was set aside, if there is one."""

    __slots__ = ("_pins",)

    def __init__(self, pins: NodePins) -> None:
        self._pins = pins

    def release(self, cookie: int) -> None:
        """Let a pod go that this version steers now, or that leaves; with the last one the tree goes."""
        if not self._pins.former.directory.exists():
            return
        with self._pods() as table:
            if table is not None:
                syscall.map_delete(table, COOKIE.pack(cookie=cookie))
            for path in entries(self._pins.former.pod(cookie)):
                links.release(path)
            list(remove_tree(self._pins.former.pod(cookie)))
        self.collect()

    def collect(self) -> None:
        """Remove the tree if it has no pods any more."""
        if self._pins.former.directory.exists() and not self.pods():
            self._remove()

    def pods(self) -> list[int]:
        """Return the netns cookies of the pods that are still steered from there."""
        with self._pods() as table:
            keys = [] if table is None else list(syscall.map_keys(table, COOKIE.size))
        return [COOKIE.unpack(key)["cookie"] for key in keys]

    def _remove(self) -> None:
        former = self._pins.former
        for directory in (*former.pod_directories(), former.links):
            for path in entries(directory):
                links.release(path)
        list(remove_tree(former.directory))
        _log.info("all pods are taken up; the maps of the former version are gone")

    @contextmanager
    def _pods(self) -> Iterator[int | None]:
        try:
            fd = syscall.obj_get(self._pins.former.maps / "zp_pods")
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)
