"""What the kernel knows of a process: its CPU time to the nanosecond, its memory, its cores."""

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2


def cpu_seconds(pid: int) -> float:
    """Return what all threads of `pid` have run, ended ones too (clock_getcpuclockid(3), from the scheduler).

    /proc/PID/stat has the same in ticks of 10 ms, too coarse for a window of a second.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def busy_seconds() -> float:
    """Return what all cores together have worked since boot, in ticks of 10 ms (proc_stat(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    user, nice, system, _idle, _iowait, irq, softirq = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of `pid`: its own pages, and its part of those that it shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found, text
    return int(found[1]) << 10


def pin(pids: Iterable[int], cores: Collection[int]) -> None:
    """Let every thread of `pids` run on `cores` only; threads born later inherit it."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(task), cores)
