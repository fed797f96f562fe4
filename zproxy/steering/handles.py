"""Finding BPF objects of one kind: by id, by pin, and zproxy's own by their bare name.

Sentences are bpftool's. A bare NAME, which bpftool does not know, is what a zproxy node pinned under it.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.errors import SteeringError
from zproxy.steering.grammar import DumpError, is_short_for, status_of, unsigned
from zproxy.steering.mounts import BPF_TYPE, is_on
from zproxy.steering.pins import pin_name, pinned_name
from zproxy.steering.syscall import Kind, fd_by_id, ids, obj_get


class Noun(NamedTuple):
    """A kind of object, as commands and the kernel speak of it."""

    kind: Kind
    word: str
    """bpftool's noun, which is also the name of its descriptors in /proc."""
    title: str
    """For people."""
    listed: str
    """What a walk over all of them calls one."""
    keywords: tuple[str, ...]
    """What bpftool's grammar finds one by."""
    folders: tuple[str, ...]
    """Where in a node's directory its pins stand, as glob patterns."""


MAP: Final = Noun(Kind.MAP, "map", "map", "map", ("id", "name", "pinned"), ("maps",))
PROG: Final = Noun(Kind.PROG, "prog", "program", "program", ("id", "tag", "name", "pinned"), ("progs",))
LINK: Final = Noun(Kind.LINK, "link", "link", "link", ("id", "pinned"), ("links", "pods/*"))


def is_bare(word: str, noun: Noun) -> bool:
    """Whether a word begins nothing in bpftool's grammar for `noun`, and so is a bare NAME."""
    return not any(is_short_for(word, keyword) for keyword in noun.keywords)


def check_shown(words: Sequence[str], noun: Noun) -> None:
    """Raise DumpError, as `show` does, unless `words` are nothing, one object, or a bare NAME."""
    if len(words) == 2 and is_bare(words[0], noun):
        quoted = [f"'{keyword}'" for keyword in noun.keywords]
        raise DumpError(f"expected {', '.join(quoted[:-1])} or {quoted[-1]}, got: '{words[0]}'?")
    if words and len(words) != 2 and not (len(words) == 1 and is_bare(words[0], noun)):
        raise DumpError(f"what is '{words[0]}'?")


def pinned_nodes(root: Path = PIN_ROOT) -> list[str]:
    """Return the names of the nodes that have maps pinned, whether or not their daemon lives."""
    return sorted(pinned_name(path.parent.name) for path in root.glob("*/maps"))


def pins_named(noun: Noun, name: str, node: str | None, root: Path = PIN_ROOT) -> list[Path]:
    """Return the pins of zproxy's object `name`, of one node or all; raise SteeringError when there are none.

    A link may be pinned once for each pod.
    """
    nodes = [node] if node else pinned_nodes(root)
    found: list[Path] = []
    if "/" not in name:
        for folder in (root / pin_name(each) for each in nodes):
            for pattern in noun.folders:
                paths = (path / name for path in sorted(folder.glob(pattern)))
                found += [path for path in paths if path.is_file()]
    if not found:
        where = root / (pin_name(node) if node else "NODE") / noun.folders[0]
        remedy = f"`zproxy bpf {noun.word} list -f` shows what is pinned"
        raise SteeringError(f"no {noun.title} {name} is pinned in {where}; {remedy}")
    return found


def every_fd(noun: Noun, *, hidden: bool = False) -> Iterator[tuple[int, int]]:
    """Open all objects of a kind by ascending id and yield id and descriptor, which is the caller's to close.

    One that goes meanwhile is passed over, unless the walk is `hidden` in a search, where it is a failure.
    """
    try:
        for number in ids(noun.kind):
            try:
                fd = fd_by_id(noun.kind, number)
            except OSError as error:
                if error.errno == errno.ENOENT and not hidden:
                    continue
                raise DumpError(f"can't get {noun.word} by id ({number}): {reason(error)}") from error
            yield number, fd
    except OSError as error:
        if hidden:
            raise DumpError(reason(error)) from error
        hint = " -- kernel too old?" if error.errno == errno.EINVAL else ""
        raise DumpError(f"can't get next {noun.listed}: {reason(error)}{hint}") from error


def open_id(noun: Noun, word: str, refusal: Callable[[int], str], stack: ExitStack) -> int:
    """Open an object by the id that `word` spells; `refusal` of it says that it is not there."""
    number = unsigned(word)
    if number is None:
        raise DumpError(f"can't parse {word} as ID")
    number &= 0xFFFFFFFF
    try:
        return owned(fd_by_id(noun.kind, number), stack)
    except OSError as error:
        status = status_of(error) if noun is LINK else 255
        raise DumpError(f"{refusal(number)}: {reason(error)}", status) from error


def open_pin(noun: Noun, path: str, stack: ExitStack) -> int:
    """Open what is pinned at `path`; raise DumpError when that is nothing, or another kind of object."""
    try:
        fd = owned(obj_get(path), stack)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise DumpError(f"bpf obj get ({path}): {reason(error)}") from error
        folder = os.path.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")
        why = reason(error) if is_on(folder, BPF_TYPE) else "directory not in bpf file system (bpffs)"
        raise DumpError(f"bpf obj get ({path if folder == '.' else folder}): {why}") from error
    kind = kind_of(fd)
    if kind != noun.word:
        raise DumpError(f"incorrect object type: {kind}")
    return fd


def kind_of(fd: int) -> str:
    """Return what a BPF descriptor is: map, prog, link or unknown."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    return next((kind for kind in ("map", "prog", "link") if f"bpf-{kind}" in target), "unknown")


def owned(fd: int, stack: ExitStack) -> int:
    """Have `stack` close a descriptor."""
    stack.callback(os.close, fd)
    return fd


def reason(error: OSError) -> str:
    """Return the kernel's words for an error."""
    return os.strerror(error.errno or 0)
