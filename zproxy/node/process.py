"""What the daemon does to itself as a process: the node's lock, its name, its limits, its collector."""

import fcntl
import gc
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zproxy.config import CGROUP_ROOT, RUN_ROOT
from zproxy.errors import ConfigError, RequirementError
from zproxy.model import capabilities
from zproxy.net.drivers import name_thread
from zproxy.steering import probe

COLLECT_AFTER: Final = 10_000
"""Container objects made and not freed before the young ones are searched for cycles: under a millisecond."""
MAX_NODE_NAME: Final = 80
"""A socket's path has room for 107 bytes, the control socket's directory included (unix(7))."""
NODE_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9.-]{{0,{MAX_NODE_NAME - 1}}}")


@contextmanager
def only_daemon(node: str) -> Iterator[None]:
    """Hold the node's lock for as long as the daemon runs; raise ConfigError when another holds it."""
    if not NODE_NAME.fullmatch(node):
        raise ConfigError(
            f"--node {node!r} is not a node name: letters, digits, '-' and '.' only, the first a letter or "
            f"digit, {MAX_NODE_NAME} at most"
        )
    directory = RUN_ROOT / node
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
            raise ConfigError(
                f"a zproxy daemon for node {node} runs already (pid {holder}); stop it or use another --node"
            ) from None
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop is there to hear it
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def note_cgroup_root(node: str, root: Path | None) -> None:
    """Leave word of --cgroup-root for who looks at the node without its daemon; None where none was given."""
    path = RUN_ROOT / node / CGROUP_ROOT
    if root is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(str(root))


def require_capabilities() -> None:
    """Raise RequirementError when this process lacks one, named with what it is for.

    Asked before anything is begun: what the kernel says later, to a setns(2) deep inside of an enrolment,
    names neither the capability nor the remedy.
    """
    lacking = capabilities.missing(probe.capabilities())
    if lacking:
        raise RequirementError(capabilities.complaint(lacking))


def calm_collector() -> None:
    """Spare the data plane the cycle collector: connections make no cycles, and what start-up made stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


def name_process() -> None:
    """Let ss, ps and top show `zproxy` instead of the interpreter."""
    name_thread("zproxy")


def raise_file_limit() -> None:
    """Every connection is two descriptors: take all that the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
