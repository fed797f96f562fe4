"""Writing and removing files so that whoever looks sees the old one or the new one, NEVER half of one."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_DRAFT: Final = ".zproxy-draft"


class Contents(NamedTuple):
    """A file as it was read."""

    text: bytes
    mode: int
    """Permission bits."""
    owner: tuple[int, int]


def read(path: Path) -> Contents:
    """Return a file's bytes, mode and owner; raise OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        return Contents(file.read(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def write(path: Path, contents: Contents) -> None:
    """Put a whole file in the place of `path`, on disk when this returns; raise OSError, nothing changed.

    The draft begins with a dot and ends with .zproxy-draft: no runtime takes it for a configuration.
    """
    path = path.resolve()  # a link stays one
    fd, draft = tempfile.mkstemp(_DRAFT, f".{path.name}.", path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(contents.text)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(file.fileno(), *contents.owner)
            os.fchmod(file.fileno(), contents.mode)
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    _sync(path.parent)


def drafts(directory: Path) -> list[Path]:
    """Return what a `write` left that was broken off by force."""
    return sorted(directory.glob(f".*{_DRAFT}"))


def remove(path: Path) -> bool:
    """Remove a file; return whether it was there. Raise OSError otherwise."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync(path.parent)
    return True


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
