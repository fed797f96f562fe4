"""What this machine has: the facts that `zproxy doctor` and a start of the daemon judge. Nothing is changed.

Each fact has its own function and is taken alone, so that one which cannot be had does not hide the others.
bcc and the TLS engine are tried in a child: bcc costs 60 MB and neither may take the asking process down.
"""

import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import BPFFS, RUN_ROOT
from zproxy.model.capabilities import SYS_ADMIN
from zproxy.steering.handles import pinned_nodes
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.info import AttachType, prog_info
from zproxy.steering.mounts import BPF_TYPE, CGROUP2_TYPE, mounts_of
from zproxy.steering.syscall import Kind, fd_by_id, next_id, prog_query

TOOLS: Final = ("bpftool", "ip", "ss", "tcpdump", "curl")
HEADER: Final = Path("/usr/include/linux/bpf.h")
"""One file of linux-libc-dev, which the programs are compiled against."""
NAMED_NETNS: Final = Path("/run/netns")
PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
ROOT_HOOKS: Final = tuple(hook.attach_type for hook in HOOKS.values() if hook.place is Place.ROOT)
"""Where zproxy attaches at the root of the cgroup hierarchy."""
_CGROUP_ROOT_INODE: Final = 1
_ALLOW_MULTI: Final = 2
_CHILD_S: Final = 20.0


class Answer(NamedTuple):
    """What a child or a system call said: a version or a name, or why not."""

    is_good: bool
    text: str


class Cgroup(NamedTuple):
    """Where the cgroup v2 hierarchy is mounted."""

    path: str
    is_whole: bool
    """False in a cgroup namespace of a container: programs attached there see that container only."""


class Hook(NamedTuple):
    """A program of somebody else at a hook of the cgroup root that zproxy uses."""

    hook: str
    prog_id: int
    name: str
    is_exclusive: bool
    """Attached so that the kernel refuses every further program."""


class Facts(NamedTuple):
    """All that is judged."""

    system: str
    release: str
    capabilities: int
    """The effective set of this process, a bit for each."""
    bpf: Answer
    jit: str
    """net.core.bpf_jit_enable; empty where this kernel has no such switch and always compiles."""
    cgroup: Cgroup | None
    has_bpffs: bool
    bcc: Answer
    has_headers: bool
    tools: Mapping[str, str | None]
    tls: Answer
    open_files: tuple[int, int]
    """Soft and hard limit of this process."""
    congestion_control: str
    hooks: tuple[Hook, ...]
    leftovers: tuple[str, ...]
    """Nodes whose pins are there while their daemon is not."""
    has_named_netns: bool
    source_ports: tuple[int, int]
    """First and last of the ports that a pod's connections have by default; (0, 0) when unknown."""


def gather() -> Facts:
    """Look at everything; takes about half a second, nearly all of it for bcc."""
    cgroup = cgroup_root()
    return Facts(
        system=platform.system(),
        release=platform.release(),
        capabilities=capabilities(),
        bpf=bpf_allowed(),
        jit=first_line(Path("/proc/sys/net/core/bpf_jit_enable")),
        cgroup=cgroup,
        has_bpffs=any(mount.path == str(BPFFS) for mount in mounts_of(BPF_TYPE)),
        bcc=ask_child("import bcc; print(bcc.__version__)"),
        has_headers=HEADER.exists(),
        tools={tool: shutil.which(tool) for tool in TOOLS},
        tls=ask_child("from zproxy.wire.tls import choose_engine; print(choose_engine().name)"),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        congestion_control=first_line(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        hooks=tuple(foreign_hooks(cgroup.path)) if cgroup else (),
        leftovers=tuple(abandoned(pinned_nodes(), RUN_ROOT)),
        has_named_netns=NAMED_NETNS.is_dir(),
        source_ports=source_ports(),
    )


def may_read_maps() -> bool:
    """Whether this process may open maps by id, which takes CAP_SYS_ADMIN."""
    return bool(capabilities() >> SYS_ADMIN.bit & 1)


def capabilities(status: Path = Path("/proc/self/status")) -> int:
    """Return the effective capabilities of this process."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", _text(status), re.MULTILINE)
    return int(match[1], 16) if match else 0


def bpf_allowed() -> Answer:
    """Make the smallest bpf(2) call that needs what loading needs."""
    try:
        next_id(Kind.PROG, 0)
    except OSError as error:
        return Answer(False, os.strerror(error.errno or 0))
    return Answer(True, "bpf(2) answers")


def cgroup_root() -> Cgroup | None:
    """Return the cgroup v2 mount that shows most: the root of the hierarchy before any part of it."""
    found = []
    for mount in mounts_of(CGROUP2_TYPE):
        try:
            found.append(Cgroup(mount.path, os.stat(mount.path).st_ino == _CGROUP_ROOT_INODE))
        except OSError:
            continue
    return max(found, key=lambda cgroup: cgroup.is_whole, default=None)


def foreign_hooks(cgroup: str) -> list[Hook]:
    """Return other people's programs at the hooks of `cgroup` that zproxy uses, as far as it may be asked."""
    found = []
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        for hook in ROOT_HOOKS:
            ids, flags = _attached(fd, hook)
            named = ((number, _program_name(number)) for number in ids)
            is_exclusive = not flags & _ALLOW_MULTI
            found += [Hook(hook.name.lower(), *each, is_exclusive) for each in named if each[1] not in HOOKS]
    finally:
        os.close(fd)
    return found


def abandoned(nodes: Iterable[str], run_root: Path) -> list[str]:
    """Return those of `nodes` whose control socket nobody answers."""
    return [node for node in nodes if not _answers(run_root / node / "control.sock")]


def source_ports(switch: Path = PORT_RANGE) -> tuple[int, int]:
    """Return net.ipv4.ip_local_port_range of a new namespace, which does not inherit the machine's.

    Without the right to make one the machine's own stands in.
    """
    command = ["unshare", "--net", "cat", str(switch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_S, check=False)
        text = done.stdout if done.returncode == 0 else _text(switch)
    except (OSError, subprocess.TimeoutExpired):
        text = _text(switch)
    match = re.fullmatch(r"(\d+)\s+(\d+)\s*", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def ask_child(code: str) -> Answer:
    """Run `code` in this interpreter's child and return what it printed, or its last word on stderr."""
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(False, str(error))
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return Answer(done.returncode == 0, said[-1] if said else f"exit status {done.returncode}")


def first_line(path: Path) -> str:
    """Return the first line of a file, empty when there is none."""
    return _text(path).partition("\n")[0].strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _attached(fd: int, hook: AttachType) -> tuple[list[int], int]:
    try:
        return prog_query(fd, hook)
    except OSError:
        return [], 0


def _program_name(number: int) -> str:
    try:
        fd = fd_by_id(Kind.PROG, number)
    except OSError:
        return ""
    try:
        return prog_info(fd).name
    finally:
        os.close(fd)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full: somebody is there, and busy
        except OSError:
            return False
    return True
