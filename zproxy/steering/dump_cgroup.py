"""`bpftool cgroup show|list|tree`, byte for byte: what is attached to one cgroup, or below one."""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Final

from zproxy.steering.btf import VMLINUX, Btf, load_vmlinux
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_json import text
from zproxy.steering.grammar import DumpError, is_short_for
from zproxy.steering.handles import reason
from zproxy.steering.info import btf_info, prog_info
from zproxy.steering.mounts import CGROUP2_TYPE, mounts_of
from zproxy.steering.progs import OpenProg, full_name
from zproxy.steering.queries import QUERY_EFFECTIVE, attached, count
from zproxy.steering.syscall import Kind, fd_by_id

CAPACITY: Final = 1024
"""Programs of one attach type at one cgroup; bpftool shows none of more."""
_FLAGS: Final = {0: "", 1: "override", 2: "multi"}
_TITLES: Final = ("ID", "AttachType", "AttachFlags", "Name")


def show_cgroup(words: Sequence[str], called: str, view: View) -> Iterator[str]:
    """Print what is attached to the one cgroup of `words`; `called` is the command as the user wrote it."""
    if not words:
        raise DumpError(f"'{called}' needs at least 1 arguments, 0 found")
    table = _Table(view, _flags(words[1:]))
    try:
        fd = os.open(words[0], os.O_RDONLY)
    except OSError as error:
        raise DumpError(f"can't open cgroup {words[0]}") from error
    try:
        if not table.has_programs(fd, words[0]):
            yield "\n" if view.is_json else ""
        elif view.is_json:
            yield table.json(fd, 0) + "\n"
        else:
            yield table.titles() + "".join(table.rows(fd, ""))
    finally:
        os.close(fd)


def show_tree(words: Sequence[str], view: View) -> Iterator[str]:
    """Print every cgroup below the root that has programs; `words` may say which root."""
    table = _Table(view, _flags(words[1:]))
    root = words[0] if words else _mounted()
    comma = ""
    failure = None
    yield "[" if view.is_json else f"CgroupPath\n{table.titles()}"
    try:
        for found in _parts(root, table):
            yield comma + found
            comma = "," if view.is_json else ""
    except DumpError as error:
        if not view.is_json:
            raise
        failure = error
        yield comma + view.layout.error(str(error), 1)
        comma = ","
    if view.is_json:
        yield (view.layout.line(0) if comma else "") + "]\n"
    if failure:
        raise DumpError(status=failure.status)


def _flags(words: Sequence[str]) -> int:
    flags = 0
    for word in words:
        if not is_short_for(word, "effective"):
            raise DumpError(f"expected no more arguments, 'effective', got: '{word}'?")
        if flags:
            raise DumpError(f"duplicated argument: {word}")
        flags = QUERY_EFFECTIVE
    return flags


def _mounted() -> str:
    for mount in mounts_of(CGROUP2_TYPE):
        return mount.path
    raise DumpError("cgroup v2 isn't mounted")


def _parts(root: str, table: "_Table") -> Iterator[str]:
    for path, depth in _walk(root):
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DumpError(f"can't open cgroup {path}: {reason(error)}") from error
        try:
            if not table.has_programs(fd, path):
                continue
            if table.view.is_json:
                yield table.cgroup_json(fd, path)
            else:
                yield f"{path}\n" + "".join(table.rows(fd, "    " if depth else ""))
        finally:
            os.close(fd)


def _walk(root: str) -> Iterator[tuple[str, int]]:
    """Walk the directories of one filesystem, each before those in it, as nftw(3) does."""
    try:
        device = os.stat(root).st_dev
    except OSError as error:
        raise DumpError(f"can't iterate over {root}: {reason(error)}") from error
    if not os.path.isdir(root):
        return
    waiting = [(root.rstrip("/") or "/", 0)]
    while waiting:
        path, depth = waiting.pop()
        yield path, depth
        try:
            below = [entry.path for entry in os.scandir(path) if entry.is_dir()]
        except OSError:
            continue  # it went meanwhile
        same = [each for each in below if _device_of(each) == device]
        waiting += [(each, depth + 1) for each in reversed(same)]


def _device_of(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


class _Table:
    """Prints the programs of cgroups; knows the kernel's types from the first program that has some."""

    __slots__ = ("_flags", "_kernel_id", "_types", "view")

    def __init__(self, view: View, flags: int) -> None:
        self.view = view
        self._flags = flags
        self._types: Btf | None = None
        self._kernel_id = 0
        """Id of the kernel's BTF object, 0 until a program refers to it."""

    def has_programs(self, fd: int, path: str) -> bool:
        """Whether anything is attached; raise DumpError when that cannot be asked: it is no cgroup."""
        for attach_type in self.view.dialect.cgroup_attach_types:
            try:
                if count(fd, attach_type, self._flags):
                    return True
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise DumpError(
                        f"can't query bpf programs attached to {path}: {reason(error)}"
                    ) from error
        return False

    def titles(self) -> str:
        """Return the line over the columns."""
        shown = [title for title in _TITLES if title != "AttachFlags" or not self._flags]
        return f"{shown[0]:<8} " + " ".join(f"{title:<15}" for title in shown[1:]) + "\n"

    def rows(self, fd: int, indent: str) -> Iterator[str]:
        """Yield a line for each program of a cgroup."""
        for prog, attach_type, flags in self._programs(fd):
            kind = self.view.dialect.attach_type(attach_type)
            cells = [kind if kind else f"type {attach_type:<10}"]
            cells += [] if self._flags else [_flag_words(flags)]
            cells.append(full_name(prog))
            target = self._target(prog)
            if target is not None:
                cells.append(target)
            line = f"{indent}{prog.info.id:<8} " + " ".join(f"{each:<15}" for each in cells)
            if target is None and prog.info.attach_btf_id:
                line += f" attach_btf_obj_id={prog.info.attach_btf_object}"
                line += f" attach_btf_id={prog.info.attach_btf_id}"
            yield line + "\n"

    def json(self, fd: int, depth: int) -> str:
        """Return the programs of a cgroup as a list whose bracket opens at `depth`."""
        objects = [text(self._program_json(*found, depth + 1)) for found in self._programs(fd)]
        return self.view.layout.array(objects, depth)(b"", 0)

    def cgroup_json(self, fd: int, path: str) -> str:
        """Return a cgroup and its programs as a member of the list of all."""
        members = [
            ("cgroup", text(self.view.dialect.quote(path))),
            ("programs", text(self.json(fd, 2))),
        ]
        return self.view.layout.object(members, 1)(b"", 0)

    def _program_json(self, prog: OpenProg, attach_type: int, flags: int, depth: int) -> str:
        quote = self.view.dialect.quote
        kind = self.view.dialect.attach_type(attach_type)
        members = [("id", str(prog.info.id)), ("attach_type", quote(kind) if kind else str(attach_type))]
        if not self._flags:
            members.append(("attach_flags", quote(_flag_words(flags))))
        members.append(("name", quote(full_name(prog))))
        target = self._target(prog)
        if target is not None:
            members.append(("attach_btf_name", quote(target)))
        members.append(("attach_btf_obj_id", str(prog.info.attach_btf_object)))
        members.append(("attach_btf_id", str(prog.info.attach_btf_id)))
        return self.view.layout.object([(name, text(value)) for name, value in members], depth)(b"", 0)

    def _programs(self, fd: int) -> Iterator[tuple[OpenProg, int, int]]:
        """Yield program, attach type and flags; what is not known here, or went meanwhile, is left out."""
        for attach_type in self.view.dialect.cgroup_attach_types:
            try:
                found = attached(fd, attach_type, self._flags, capacity=CAPACITY)
            except OSError:
                continue
            for each in found:
                try:
                    prog_fd = fd_by_id(Kind.PROG, each.prog_id)
                except OSError:
                    continue
                try:
                    yield OpenProg(prog_fd, prog_info(prog_fd)), attach_type, each.flags
                finally:
                    os.close(prog_fd)

    def _target(self, prog: OpenProg) -> str | None:
        """Return the kernel's function that an LSM program hangs on, "" for another program.

        None when it cannot be told: from the first LSM program on bpftool compares BTF objects, and every
        other program has none.
        """
        if not VMLINUX.exists():
            return None
        if not self._kernel_id:
            self._kernel_id = _kernel_id(prog.info.attach_btf_object)
        if self._kernel_id != prog.info.attach_btf_object:
            return None
        if not prog.info.attach_btf_id:
            return ""
        if self._types is None:
            self._types = load_vmlinux()
        if prog.info.attach_btf_id >= len(self._types):
            return None
        return str(getattr(self._types.type(prog.info.attach_btf_id), "name", ""))


def _flag_words(flags: int) -> str:
    return _FLAGS.get(flags, f"unknown({flags:x})")


def _kernel_id(number: int) -> int:
    """Return `number` when it is the id of the kernel's own BTF object, else 0."""
    try:
        fd = fd_by_id(Kind.BTF, number)
    except OSError:
        return 0
    try:
        return number if btf_info(fd).name == "vmlinux" else 0
    finally:
        os.close(fd)
