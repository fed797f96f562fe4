"""Where one node's maps, programs and links are pinned: PIN_ROOT/NODE/{maps,progs,links,pods/COOKIE}.

Pins are what keeps steering alive while no daemon runs. Nothing outside the node's directory is ever touched,
and nothing is ever unmounted: bpffs is shared with every other BPF user of the machine.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zproxy.config import BPFFS, PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.steering.mounts import BPF_TYPE, is_on

KNOWN: Final = frozenset({"maps", "progs", "progs-new", "links", "pods", "former"})
"""Everything that a node's directory may hold."""

_libc = ctypes.CDLL(None, use_errno=True)


def pin_name(name: str) -> str:
    """Return a node's or an interface's name as bpffs takes it: it keeps names with dots for itself."""
    return name.replace("%", "%25").replace(".", "%2E")


def pinned_name(name: str) -> str:
    """Return the name that `pin_name` made a pin of."""
    return name.replace("%2E", ".").replace("%25", "%")


def interface_pin(hook: str, interface: str) -> str:
    """Return the name of the pin of a hook's link at an interface."""
    return f"{hook}-{pin_name(interface)}"


class NodePins:
    """The paths of one node. Knows names only; opens nothing."""

    __slots__ = ("directory", "links", "maps", "pods", "programs", "programs_new")

    def __init__(self, node: str, root: Path = PIN_ROOT) -> None:
        if not node or "/" in node:
            raise SteeringError(f"{node!r} cannot name a node: its pins need a directory of that name")
        self._lay_out(root / pin_name(node))

    def _lay_out(self, directory: Path) -> None:
        self.directory = directory
        self.maps = self.directory / "maps"
        self.programs = self.directory / "progs"
        self.programs_new = self.directory / "progs-new"
        """Programs of an upgrade, until every link runs them."""
        self.links = self.directory / "links"
        """Links that serve all pods."""
        self.pods = self.directory / "pods"

    @property
    def former(self) -> "NodePins":
        """The tree of a version with other maps, until its pods are taken up; see former.py."""
        pins = object.__new__(NodePins)
        pins._lay_out(self.directory / "former")
        return pins

    def parts(self) -> tuple[Path, ...]:
        """Return the directories that make a tree, the maps first."""
        return self.maps, self.programs, self.programs_new, self.links, self.pods

    def pod(self, cookie: int) -> Path:
        """Return the directory of one pod's links."""
        return self.pods / str(cookie)

    def strangers(self) -> list[Path]:
        """Return what is in the node's directory and was not put there by any zproxy."""
        return [path for path in entries(self.directory) if path.name not in KNOWN]

    def pod_directories(self) -> list[Path]:
        """Return the directories of the pods that have links."""
        return [path for path in entries(self.pods) if path.name.isdigit()]

    def link_pins(self) -> list[Path]:
        """Return every pin of a link: those that serve all pods, and each pod's."""
        return [path for directory in (self.links, *self.pod_directories()) for path in entries(directory)]


def entries(directory: Path) -> list[Path]:
    """Return what is in a directory, sorted; nothing when it is not there."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def remove_tree(directory: Path) -> Iterator[Path]:
    """Delete a directory of bpffs and yield each path that went. What has gone already is fine."""
    for path in entries(directory):
        if path.is_dir() and not path.is_symlink():
            yield from remove_tree(path)
        else:
            path.unlink(missing_ok=True)
            yield path
    try:
        directory.rmdir()
    except FileNotFoundError:
        return
    yield directory


def ensure_bpffs(root: Path = PIN_ROOT) -> None:
    """Make sure that pins can be made below `root`, mounting bpffs at its usual place if nobody has.

    Raise RequirementError when that is impossible here, SteeringError when `root` is elsewhere.
    """
    existing = next(path for path in (root, *root.parents) if path.exists())
    if is_on(str(existing), BPF_TYPE):
        return
    if BPFFS not in (root, *root.parents):
        raise SteeringError(f"{root} is not on a BPF file system; choose a directory below {BPFFS}")
    if not BPFFS.is_dir():
        raise RequirementError(f"{BPFFS} does not exist: this kernel was built without CONFIG_BPF_SYSCALL")
    if _libc.mount(b"bpf", os.fsencode(BPFFS), b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        code = ctypes.get_errno()
        remedy = "run as root" if code == errno.EPERM else "is CONFIG_BPF_SYSCALL on?"
        raise RequirementError(f"cannot mount the BPF file system at {BPFFS}: {os.strerror(code)}; {remedy}")
