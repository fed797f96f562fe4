"""One run at a time on a machine: tests, soaks and benchmarks see each other's namespaces and load."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOCK: Final = Path("/run/lock/zproxy-tests.lock")
PATIENCE_S: Final = 1800.0
WAITING: Final = "waiting for another zproxy test run on this machine"
_HELD: Final = "ZPROXY_TESTS_HOLD_THE_MACHINE"
"""Set for the children of the holder: a run that a test starts does not wait for its own parent."""


@contextlib.contextmanager
def exclusive(say: str = WAITING, *, path: Path = LOCK) -> Iterator[None]:
    """Hold the machine; raise TimeoutError after PATIENCE_S. Prints `say` once if it has to wait."""
    if _HELD in os.environ:
        yield
        return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, say)
        os.environ[_HELD] = "1"
        yield
    finally:
        os.environ.pop(_HELD, None)
        os.close(fd)


def _lock(fd: int, say: str) -> None:
    until = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(f"{say}: it did not end within {PATIENCE_S:.0f} s ({LOCK})") from None
            if not told:
                print(f"{say} ...", flush=True)  # noqa: T201
                told = True
            time.sleep(0.2)
        else:
            return
