"""What of zproxy is on this machine, found without a daemon: pins, records, namespaces, and who runs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from zproxy.config import CGROUP_ROOT, PIN_ROOT, RUN_ROOT
from zproxy.node.records import Record, Records
from zproxy.steering.inspect_pod import Inspector
from zproxy.steering.objects import Objects, Unusable, open_maps, open_programs
from zproxy.steering.pins import NodePins, entries, pinned_name

LOCKS: Path = Path("/proc/locks")


class Known(NamedTuple):
    """A pod of which there is anything."""

    name: str
    """`namespace/name`; when neither record nor map knows it, the cookie."""
    cookie: int
    record: Record | None


class Site:
    """One node's places. Where the roots are is for tests to say."""

    def __init__(self, node: str, pin_root: Path = PIN_ROOT, run_root: Path = RUN_ROOT) -> None:
        self.node = node
        self.pin_root = pin_root
        self.pins = NodePins(node, pin_root)
        self.run = run_root / node
        self.records = Records(self.run / "pods")

    @property
    def lock(self) -> Path:
        """The file that the daemon holds a lock on for as long as it lives."""
        return self.run / "lock"

    @property
    def cgroup_root(self) -> Path | None:
        """The cgroup that the daemon was given as the node's root, None where it took the machine's."""
        try:
            return Path((self.run / CGROUP_ROOT).read_text())
        except OSError:
            return None

    def daemon(self) -> int | None:
        """Return the process id of the living daemon; None when there is none, 0 when only that is hidden.

        Asks the kernel who holds the lock, without taking it: a daemon that starts now must not be disturbed.
        """
        try:
            inode = os.stat(self.lock).st_ino
        except OSError:
            return None
        for line in LOCKS.read_text().splitlines():
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                return max(int(words[4]), 0)
        return None

    @contextmanager
    def opened(self) -> Iterator[tuple[Inspector | None, Objects | None, str]]:
        """Open what is pinned; nothing, and a sentence why, when it cannot be used."""
        with ExitStack() as stack:
            try:
                objects = open_maps(self.pins)
                stack.callback(objects.close)
                open_programs(self.pins, objects)
            except Unusable as finding:
                yield None, None, str(finding)
                return
            yield Inspector(self.pins, objects), objects, ""

    def pods(self, inspector: Inspector | None) -> list[Known]:
        """Return every pod of which there is a record, a map entry or a pin, by name."""
        records = {record.cookie: record for record in self.records.peek()}
        names = {record.cookie: record.pod for record in records.values()}
        cookies = {int(path.name) for path in self.pins.pod_directories()}
        if inspector is not None:
            cookies |= inspector.traces()
            names = {entry.cookie: entry.name for entry in inspector.entries()} | names
        found = cookies | records.keys()
        return sorted(Known(names.get(each, str(each)), each, records.get(each)) for each in found)


def nodes(pin_root: Path = PIN_ROOT, run_root: Path = RUN_ROOT) -> list[str]:
    """Return the nodes of which anything is on this machine: pins, or a daemon's directory."""
    pinned = {pinned_name(path.name) for path in entries(pin_root) if path.is_dir()}
    ran = {path.name for path in entries(run_root) if (path / "lock").exists() or (path / "pods").is_dir()}
    return sorted(pinned | ran)
