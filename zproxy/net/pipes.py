"""Pipes for splice(2): bytes go from one socket to another without a copy to user space.

A pipe is borrowed while bytes are in it, so a connection that moves nothing holds none.
"""

import contextlib
import fcntl
import os
from typing import Final

SIZE: Final = 1 << 20
"""Bytes in 4 KiB pages; fs.pipe-max-size allows as much to anybody."""
SPARE: Final = 8
"""Empty pipes kept; a burst's others are closed."""


class Pipe:
    """Two descriptors and the `held` bytes between them."""

    __slots__ = ("_sink", "_source", "held")

    def __init__(self) -> None:
        self._source, self._sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        with contextlib.suppress(PermissionError):  # the user's share of pipe memory is spent: a small one
            fcntl.fcntl(self._sink, fcntl.F_SETPIPE_SZ, SIZE)

    def fill(self, fd: int) -> int:
        """Take what the socket `fd` holds; return the bytes, 0 at its end of file. Raise OSError."""
        moved = os.splice(fd, self._sink, SIZE, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        self.held += moved
        return moved

    def drain(self, fd: int) -> int:
        """Hand what is held to the socket `fd`; return the bytes that it took. Raise OSError."""
        moved = os.splice(self._source, fd, self.held, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        self.held -= moved
        return moved

    def close(self) -> None:
        """Close both ends; what is held is lost."""
        os.close(self._source)
        os.close(self._sink)


class Pipes:
    """The pipes of one worker."""

    def __init__(self) -> None:
        self._spare: list[Pipe] = []

    def borrow(self) -> Pipe:
        """Return an empty pipe; raise OSError when the process has no descriptors left."""
        return self._spare.pop() if self._spare else Pipe()

    def give_back(self, pipe: Pipe) -> None:
        """Take a pipe back; one that still holds something is closed."""
        if pipe.held or len(self._spare) >= SPARE:
            pipe.close()
        else:
            self._spare.append(pipe)

    def close(self) -> None:
        """Close what is spare."""
        while self._spare:
            self._spare.pop().close()
