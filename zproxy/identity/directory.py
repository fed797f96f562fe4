"""The CA's directory on disk: one process at a time, nothing half written, nothing that others can touch."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zproxy.errors import IdentityError

LOCK_FILE: Final = "lock"
LOCK_WAIT_S: Final = 10.0
"""Making a root takes milliseconds; who holds the lock for longer hangs."""
_LARGEST_FILE: Final = 64 << 10


class CaDirectory:
    """A directory that this process alone reads and writes for as long as it is open."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    @contextmanager
    def locked(cls, path: Path, wait_s: float = LOCK_WAIT_S) -> Iterator["CaDirectory"]:
        """Make the directory if there is none and hold its lock; block for at most `wait_s`.

        Raise IdentityError, also for any OSError inside.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _refuse_writable_by_others(path, os.fstat(fd))
                with open(_open_at(fd, LOCK_FILE, os.O_RDWR | os.O_CREAT), "rb") as lock:
                    _wait_for_lock(path, lock.fileno(), wait_s)
                    yield cls(path, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise IdentityError(
                f"the CA directory {path} cannot be used: {error.strerror}; name one that this user can write"
            ) from error

    def read(self, name: str, *, is_secret: bool = False) -> bytes | None:
        """Return the content of a file, None when there is none; refuse a secret that others can open."""
        try:
            # O_NONBLOCK: a FIFO in the file's place must not hang us.
            fd = _open_at(self._fd, name, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise IdentityError(f"{self._path / name} is not a regular file; remove it")
            if is_secret:
                _refuse_readable_by_others(self._path / name, status)
            return file.read(_LARGEST_FILE)

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Make a file with this content appear, complete and on disk, in place of what had its name."""
        aside = f".{name}.new"
        with open(_open_at(self._fd, aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)


def _open_at(directory: int, name: str, flags: int) -> int:
    """Open a file of the directory; NEVER through a symbolic link, which could lead out of it."""
    return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)


def _refuse_writable_by_others(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise IdentityError(
            f"other users could put their own root into the CA directory {path} ({_access(status)}); "
            f"chown it to uid {os.geteuid()} and chmod it to 700"
        )


def _refuse_readable_by_others(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise IdentityError(
            f"the CA's key {path} is open to other users ({_access(status)}); chown it to uid {os.geteuid()} "
            "and chmod it to 600, or begin a new CA if one of them may have read it"
        )


def _access(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}, uid {status.st_uid}"


def _wait_for_lock(path: Path, fd: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise IdentityError(
                    f"another process has held {path / LOCK_FILE} for {wait_s:g} s; end it and try again"
                ) from error
            time.sleep(0.01)
