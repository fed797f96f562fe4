"""What a process holds, read from /proc: descriptors, threads, memory, CPU time."""

import os
import time
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """One look at a process."""

    descriptors: int
    threads: int
    anonymous_kb: int
    """Memory of its own: Pss_Anon, which no other process's coming and going changes."""


def held(pid: int) -> Held:
    """Look at a process."""
    proc = Path(f"/proc/{pid}")
    rollup = (proc / "smaps_rollup").read_text().splitlines()
    anonymous = next(line for line in rollup if line.startswith("Pss_Anon:"))
    return Held(
        descriptors=min(_descriptors(proc) for _ in range(5)),
        threads=len(os.listdir(proc / "task")),
        anonymous_kb=int(anonymous.split()[1]),
    )


def _descriptors(proc: Path) -> int:
    """Count what is open; a moment later, so that the least of several looks leaves out who just called."""
    time.sleep(0.02)
    return len(os.listdir(proc / "fd"))


def slab_kb() -> int:
    """Return the kernel's memory in objects of all kinds, of the whole machine (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:"))


def cpu_s(pid: int) -> float:
    """Return the CPU time of all its threads, in seconds and exact to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
