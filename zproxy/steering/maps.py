"""Finding maps: by id, by name, by pin, and zproxy's own by their bare name.

Grammar and sentences are bpftool's: MAP := { id ID | name NAME | pinned FILE }. A bare NAME, which bpftool
does not know, is a map that a zproxy node pinned under its own name.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.steering.grammar import DumpError, is_short_for
from zproxy.steering.handles import (
    MAP,
    every_fd,
    is_bare,
    open_id,
    open_pin,
    owned,
    pins_named,
    reason,
)
from zproxy.steering.info import MapInfo, map_info

NAME_SIZE: Final = 16
"""Bytes of a map's name with the zero at its end."""


class OpenMap(NamedTuple):
    """A map and its descriptor, which belongs to whoever opened it."""

    fd: int
    info: MapInfo


class Selection(NamedTuple):
    """The maps that the first words of a command name, and the words that are left."""

    maps: list[OpenMap]
    rest: Sequence[str]


@contextmanager
def select(words: Sequence[str], node: str | None, root: Path = PIN_ROOT) -> Iterator[Selection]:
    """Open the maps that `words` begin with and close them at the end of the block.

    `name NAME` may find several maps or none. So may a bare NAME: one of each node, unless `node` says which.
    Raise DumpError where bpftool would fail, SteeringError when no node pinned a map of a bare NAME.
    """
    with ExitStack() as stack:
        if is_bare(words[0], MAP):
            fds = [open_pin(MAP, str(path), stack) for path in pins_named(MAP, words[0], node, root)]
            yield Selection([_described(fd) for fd in fds], words[1:])
        elif is_short_for(words[0], "id"):
            fd = open_id(MAP, words[1], "get map by id ({})".format, stack)
            yield Selection([_described(fd)], words[2:])
        elif is_short_for(words[0], "name"):
            yield Selection(_open_named(words[1], stack), words[2:])
        else:
            yield Selection([_described(open_pin(MAP, words[1], stack))], words[2:])


def every_map() -> Iterator[OpenMap]:
    """Walk all maps of this machine by ascending id; each is closed when the walk goes on."""
    for _, fd in every_fd(MAP):
        try:
            yield _described(fd)
        finally:
            os.close(fd)


def _described(fd: int, which: str = "") -> OpenMap:
    try:
        return OpenMap(fd, map_info(fd))
    except OSError as error:
        raise DumpError(f"can't get map info{which}: {reason(error)}") from error


def _open_named(name: str, stack: ExitStack) -> list[OpenMap]:
    if len(os.fsencode(name)) >= NAME_SIZE:
        raise DumpError("can't parse name")
    found = []
    for number, fd in every_fd(MAP, hidden=True):
        with ExitStack() as single:
            owned(fd, single)
            opened = _described(fd, f" ({number})")
            if opened.info.name == name:
                found.append(opened)
                stack.push(single.pop_all())
    return found
