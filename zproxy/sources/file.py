"""The mesh from a local file in ztunnel's LOCAL_XDS shape, all or nothing.

A bad file changes nothing: `load` returns a complete snapshot or raises ConfigError with file, line and key.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zproxy.errors import ConfigError
from zproxy.model.workload import Workload
from zproxy.sources.document import Mapping, Node, Place, Scalar, parse
from zproxy.sources.fields import Fields
from zproxy.sources.workloads import read_workload, refuse_unless_empty
from zproxy.state.store import Mesh

MAX_BYTES: Final = 64 << 20
"""Size of a file."""

UNSUPPORTED: Final = {
    "policies": "connections would be let in that those policies deny",
    "services": "connections to their addresses would not reach the mesh",
}
"""Top-level keys of the format that this version does not act on, and what that would mean."""


def load(path: Path) -> Mesh:
    """Return the mesh that the file at `path` describes; raise ConfigError."""
    root = parse(_text(path), path)
    if root is None or (isinstance(root, Scalar) and not root.text):
        raise Place(path, 1).error("the file is empty; it needs a top-level list `workloads:`")
    fields = Fields(root, Place(path, root.line), ("workloads", *UNSUPPORTED))
    for key, consequence in UNSUPPORTED.items():
        refuse_unless_empty(fields.node(key), fields.place(key), consequence)
    if "workloads" not in fields:
        raise fields.place("workloads").error("missing; the file needs a top-level list `workloads:`")
    entries = list(fields.items("workloads"))
    workloads = [read_workload(node, place) for node, place in entries]
    _refuse_duplicates(workloads, entries)
    return Mesh.of(workloads)


def _refuse_duplicates(workloads: Sequence[Workload], entries: Sequence[tuple[Node, Place]]) -> None:
    """Raise ConfigError where one uid, pod or address is that of two workloads: one would not be found."""
    taken: dict[tuple[str, ...], int] = {}

    def claim(index: int, key: str, value: str, network: str = "") -> None:
        earlier = taken.setdefault((key, value, network), index)
        if earlier != index:
            here, there = (_place_of(key, *entries[each]) for each in (index, earlier))
            on = f" on network {network!r}" if network else ""
            raise here.error(f"{value!r} is already that of line {there.line}{on}; each needs its own")

    for index, workload in enumerate(workloads):
        claim(index, "uid", workload.uid)
        claim(index, "name", workload.pod)
        for ip in workload.workload_ips:
            claim(index, "workloadIps", ip, workload.network)


def _place_of(key: str, node: Node, here: Place) -> Place:
    return here.under(key, node.keys[key] if isinstance(node, Mapping) else node.line)


def _text(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Place(path, line).error("not UTF-8 text; save the file as UTF-8") from error


def _bytes(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hang the daemon before it can be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            data = _read(fd) if is_file else b""
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigError(f"the mesh file {path} cannot be read: {error.strerror}; check the path") from error
    if not is_file:
        raise ConfigError(f"{path} is not a regular file; name the mesh's YAML file itself")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB; is this the file of a mesh?")
    return data


def _read(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read(MAX_BYTES + 1)
