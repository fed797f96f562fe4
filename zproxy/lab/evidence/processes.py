"""Who a process is: its name, the network namespace it stands in, its effective capabilities."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_CAPABILITIES: Final = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
"""Bit 0 first, as linux/capability.h numbers them (up to Linux 5.9, the newest)."""


class ProcessInfo(NamedTuple):
    """A process, at the moment it was looked at. `netns` is (device, inode) of its network namespace."""

    pid: int
    command: str
    netns: tuple[int, int]
    capabilities: tuple[str, ...]


def inspect(pid: int) -> ProcessInfo:
    """Look at process `pid`; raise OSError when it is gone."""
    root = Path(f"/proc/{pid}")
    mask = re.search(r"^CapEff:\s*([0-9a-f]+)$", (root / "status").read_text(), re.MULTILINE)
    effective = decode_capabilities(int(mask[1], 16)) if mask else ()
    return ProcessInfo(pid, (root / "comm").read_text().strip(), namespace_of(pid), effective)


def namespace_of(pid: int) -> tuple[int, int]:
    """Return (device, inode) of the network namespace of process `pid`; raise OSError when it is gone."""
    status = os.stat(f"/proc/{pid}/ns/net")
    return status.st_dev, status.st_ino


def in_host_namespace() -> ProcessInfo | None:
    """Return a process that stands in the host's network namespace; None when /proc hides them all.

    Kernel threads never leave the initial namespace; where a PID namespace hides them, pid 1 is asked.
    """
    for pid, command in ((2, "kthreadd"), (1, "")):
        try:
            found = inspect(pid)
            if found.command == (command or found.command):
                return found
        except OSError:
            continue
    return None


def decode_capabilities(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities in `mask`, as `capsh --decode` prints them."""
    named = tuple(f"cap_{name}" for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1)
    rest = range(len(_CAPABILITIES), mask.bit_length())
    return named + tuple(str(bit) for bit in rest if mask >> bit & 1)
