"""Finding maps: by id, by name, by pin, and zproxy's own by their bare name.

Grammar and sentences are bpftool's: MAP := { id ID | name NAME | pinned FILE }. A bare NAME, which bpftool
does not know, is a map that a zproxy node pinned under its own name.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.errors import SteeringError
from zproxy.steering.grammar import DumpError, is_short_for, unsigned
from zproxy.steering.info import MapInfo, map_info
from zproxy.steering.mounts import BPF_TYPE, is_on
from zproxy.steering.pins import pin_name, pinned_name
from zproxy.steering.syscall import Kind, fd_by_id, ids, obj_get

NAME_SIZE: Final = 16
"""Bytes of a map's name with the zero at its end."""
KEYWORDS: Final = ("id", "name", "pinned")


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
        if is_bare(words[0]):
            fds = [_open_pin(str(path), stack) for path in pins_named(words[0], node, root)]
            yield Selection([_described(fd) for fd in fds], words[1:])
        elif is_short_for(words[0], "id"):
            yield Selection([_described(_open_id(words[1], stack))], words[2:])
        elif is_short_for(words[0], "name"):
            yield Selection(_open_named(words[1], stack), words[2:])
        else:
            yield Selection([_described(_open_pin(words[1], stack))], words[2:])


def is_bare(word: str) -> bool:
    """Whether a word begins no MAP of bpftool's, and so is a bare NAME."""
    return not any(is_short_for(word, keyword) for keyword in KEYWORDS)


def pins_named(name: str, node: str | None, root: Path = PIN_ROOT) -> list[Path]:
    """Return the pins of zproxy's map `name`, of one node or all; raise SteeringError when there are none."""
    nodes = [node] if node else pinned_nodes(root)
    paths = [root / pin_name(each) / "maps" / name for each in nodes]
    found = [path for path in paths if path.is_file() and "/" not in name]
    if not found:
        where = root / (pin_name(node) if node else "NODE") / "maps"
        raise SteeringError(
            f"no map {name} is pinned in {where}; `zproxy bpf map list -f` shows what is pinned"
        )
    return found


def pinned_nodes(root: Path = PIN_ROOT) -> list[str]:
    """Return the names of the nodes that have maps pinned, whether or not their daemon lives."""
    return sorted(pinned_name(path.parent.name) for path in root.glob("*/maps"))


def every_map() -> Iterator[OpenMap]:
    """Walk all maps of this machine by ascending id; each is closed when the walk goes on."""
    for number in _ids("can't get next map: "):
        try:
            fd = fd_by_id(Kind.MAP, number)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            raise DumpError(f"can't get map by id ({number}): {_reason(error)}") from error
        try:
            yield _described(fd)
        finally:
            os.close(fd)


def _ids(failure: str) -> Iterator[int]:
    try:
        yield from ids(Kind.MAP)
    except OSError as error:
        hint = " -- kernel too old?" if failure and error.errno == errno.EINVAL else ""
        raise DumpError(f"{failure}{_reason(error)}{hint}") from error


def _described(fd: int) -> OpenMap:
    try:
        return OpenMap(fd, map_info(fd))
    except OSError as error:
        raise DumpError(f"can't get map info: {_reason(error)}") from error


def _open_id(word: str, stack: ExitStack) -> int:
    number = unsigned(word)
    if number is None:
        raise DumpError(f"can't parse {word} as ID")
    number &= 0xFFFFFFFF
    try:
        return _owned(fd_by_id(Kind.MAP, number), stack)
    except OSError as error:
        raise DumpError(f"get map by id ({number}): {_reason(error)}") from error


def _open_named(name: str, stack: ExitStack) -> list[OpenMap]:
    if len(os.fsencode(name)) >= NAME_SIZE:
        raise DumpError("can't parse name")
    found = []
    for number in _ids(""):
        try:
            fd = fd_by_id(Kind.MAP, number)
        except OSError as error:
            raise DumpError(f"can't get map by id ({number}): {_reason(error)}") from error
        opened = _described(fd)
        if opened.info.name == name:
            found.append(OpenMap(_owned(fd, stack), opened.info))
        else:
            os.close(fd)
    return found


def _open_pin(path: str, stack: ExitStack) -> int:
    try:
        fd = _owned(obj_get(path), stack)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise DumpError(f"bpf obj get ({path}): {_reason(error)}") from error
        folder = os.path.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")
        reason = _reason(error) if is_on(folder, BPF_TYPE) else "directory not in bpf file system (bpffs)"
        raise DumpError(f"bpf obj get ({path if folder == '.' else folder}): {reason}") from error
    kind = kind_of(fd)
    if kind != "map":
        raise DumpError(f"incorrect object type: {kind}")
    return fd


def kind_of(fd: int) -> str:
    """Return what a BPF descriptor is: map, prog, link or unknown."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    return next((kind for kind in ("map", "prog", "link") if f"bpf-{kind}" in target), "unknown")


def _owned(fd: int, stack: ExitStack) -> int:
    stack.callback(os.close, fd)
    return fd


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
