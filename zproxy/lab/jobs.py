"""Long-running programs of the lab: started in a namespace, found again and stopped by what they are.

A job is known by its whole command line, which names a file of the lab, NEVER by a pid that was written
down: a lab that was killed between starting a process and recording it is still found. Signals go
through a pidfd, which cannot come to mean another process.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.lab import inside
from zproxy.net.netns import Netns

_STOP_S: Final = 8.0
"""A job gets this long after SIGTERM (a daemon drains for up to 5 s), then SIGKILL."""
_EXEC_S: Final = 1.0


class Job(NamedTuple):
    """A module of ours and its arguments. `arguments` ALWAYS name a path inside the lab's directory."""

    name: str
    netns: str
    module: str
    arguments: tuple[str, ...]
    log: Path

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line without the interpreter, which may differ between two starts."""
        return inside.module(self.module, *self.arguments)[1:]


def start(job: Job) -> int:
    """Start `job` in its namespace, detached, its output appended to its log; return its pid."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(job.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]

    def spawn() -> int:
        argv = (sys.executable, *job.argv)
        return os.posix_spawn(sys.executable, argv, inside.environment(), file_actions=actions, setsid=True)

    with Netns.named(job.netns) as netns:
        pid = netns.run(spawn)
    deadline = time.monotonic() + _EXEC_S
    while not _argv(pid) and time.monotonic() < deadline:  # spawn returns a moment before exec has shown it
        time.sleep(0.001)
    return pid


def running(job: Job) -> tuple[int, ...]:
    """Return the pids of the processes that are `job`; zombies do not count."""
    return tuple(pid for entry in os.listdir("/proc") if entry.isdigit() and _is(job, pid := int(entry)))


def stop(jobs: Sequence[Job]) -> list[str]:
    """Stop every process of `jobs`, all at once, and return what was stopped."""
    held = [(job, pid, fd) for job in jobs for pid in running(job) if (fd := _hold(job, pid)) is not None]
    try:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for _, _, fd in held:
                _send(fd, signum)
            held_on = [fd for _, _, fd in held if not _wait(fd, _STOP_S)]
            if not held_on:
                break
        return [f"{job.name}, pid {pid}" for job, pid, _ in held]
    finally:
        for _, _, fd in held:
            os.close(fd)


def send(job: Job, signum: signal.Signals) -> None:
    """Send a signal to every process of `job`."""
    for pid in running(job):
        fd = _hold(job, pid)
        if fd is not None:
            try:
                _send(fd, signum)
            finally:
                os.close(fd)


def last_words(job: Job, lines: int = 5) -> str:
    """Return the end of the job's log, for a message that says why it failed."""
    try:
        with job.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no output)"
    return "\n".join(text.strip().splitlines()[-lines:]) or "(no output)"


def _is(job: Job, pid: int) -> bool:
    return _argv(pid)[1:] == job.argv


def _argv(pid: int) -> tuple[str, ...]:
    """Return the command line of a process; empty for a zombie, and for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ()
    return tuple(text.decode(errors="replace").split("\0")[:-1])


def _hold(job: Job, pid: int) -> int | None:
    """Return a pidfd of `pid`, checked after it was taken to be still the job; None when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _is(job, pid):
        return fd
    os.close(fd)
    return None


def _send(fd: int, signum: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return


def _wait(fd: int, timeout_s: float) -> bool:
    """Wait until the process behind a pidfd has ended; reap it when it is our child."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(timeout_s * 1000):
        return False
    with contextlib.suppress(ChildProcessError):  # it was started by another `zproxy lab`
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    return True
