"""Finding programs: by id, by tag, by name, by pin, and zproxy's own by their bare name.

Grammar and sentences are bpftool's: PROG := { id ID | tag TAG | name NAME | pinned FILE }.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.steering.btf import load
from zproxy.steering.btf_types import BtfKind, Reference
from zproxy.steering.grammar import DumpError, is_short_for
from zproxy.steering.handles import PROG, every_fd, is_bare, open_id, open_pin, owned, pins_named, reason
from zproxy.steering.info import ProgInfo, first_function, prog_info

NAME_SIZE: Final = 16
"""Bytes of the name that the kernel keeps, with the zero at its end."""
FULL_NAME_SIZE: Final = 128
"""Bytes of a name that bpftool reads from BTF, likewise."""
TAG_SIZE: Final = 8
_TAG_BYTE: Final = re.compile(r"[ \t\n\v\f\r]*(?:(0[xX])|([+-]?)([0-9a-fA-F]{1,2}))")


class OpenProg(NamedTuple):
    """A program and its descriptor, which belongs to whoever opened it."""

    fd: int
    info: ProgInfo


@contextmanager
def select_progs(words: Sequence[str], node: str | None, root: Path = PIN_ROOT) -> Iterator[list[OpenProg]]:
    """Open the programs that `words` name and close them at the end of the block.

    A tag or a name may find several or none; so may a bare NAME, one of each node, unless `node` says which.
    Raise DumpError where bpftool would fail, SteeringError when no node pinned a program of a bare NAME.
    """
    with ExitStack() as stack:
        if is_bare(words[0], PROG):
            fds = [open_pin(PROG, str(path), stack) for path in pins_named(PROG, words[0], node, root)]
            yield [described(fd) for fd in fds]
        elif is_short_for(words[0], "id"):
            yield [described(open_id(PROG, words[1], "get by id ({})".format, stack))]
        elif is_short_for(words[0], "tag"):
            tag = parse_tag(words[1])
            yield _search(lambda found: bytes.fromhex(found.info.tag) == tag, stack)
        elif is_short_for(words[0], "name"):
            yield _search(_is_named(words[1]), stack)
        else:
            yield [described(open_pin(PROG, words[1], stack))]


def every_prog() -> Iterator[OpenProg]:
    """Walk all programs of this machine by ascending id; each is closed when the walk goes on."""
    for _, fd in every_fd(PROG):
        try:
            yield described(fd)
        finally:
            os.close(fd)


def described(fd: int, which: str = "") -> OpenProg:
    """Ask what the program behind `fd` is; `which` follows in the sentence that it cannot be told."""
    try:
        return OpenProg(fd, prog_info(fd))
    except OSError as error:
        raise DumpError(f"can't get prog info{which}: {reason(error)}") from error


def full_name(prog: OpenProg) -> str:
    """Return the name of a program: the kernel keeps 15 bytes of it, BTF may know the rest."""
    name = prog.info.name
    if len(name) < NAME_SIZE - 1 or not (prog.info.btf_id and prog.info.function_count):
        return name
    try:
        function = load(prog.info.btf_id).type(first_function(prog.fd))
    except OSError:
        return name
    if isinstance(function, Reference) and function.kind is BtfKind.FUNC:
        return function.name[: FULL_NAME_SIZE - 1]
    return name


def parse_tag(word: str) -> bytes:
    """Read a tag as scanf(3) does: eight numbers of two characters; what follows does not count."""
    taken = bytearray()
    at = 0
    while len(taken) < TAG_SIZE:
        match = _TAG_BYTE.match(word, at)
        if match is None:
            raise DumpError("can't parse tag")
        prefix, sign, digits = match.groups()
        digits = "0" if prefix else digits[: 2 - len(sign)]
        at = match.end() if prefix else match.start(3) + len(digits)
        taken.append(int(sign + digits, 16) & 0xFF if sign else int(digits, 16))
    return bytes(taken)


def _is_named(name: str) -> Callable[[OpenProg], bool]:
    if len(os.fsencode(name)) >= FULL_NAME_SIZE:
        raise DumpError("can't parse name")
    return lambda found: full_name(found) == name


def _search(fits: Callable[[OpenProg], bool], stack: ExitStack) -> list[OpenProg]:
    found = []
    for number, fd in every_fd(PROG, hidden=True):
        with ExitStack() as single:
            owned(fd, single)
            prog = described(fd, f" ({number})")
            if fits(prog):
                found.append(prog)
                stack.push(single.pop_all())
    return found
