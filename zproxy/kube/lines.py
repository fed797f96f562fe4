"""The lines of a watch: one JSON document each, in chunks that begin and end anywhere."""

from typing import Final

MAX_LINE: Final = 8 << 20
"""Bytes; etcd takes objects of 1.5 MiB, which JSON makes larger by a little."""


class LineTooLong(ValueError):
    """A line has no end within MAX_LINE bytes; whoever sends that does not speak this protocol."""


class LineSplitter:
    """Holds the beginning of a line until the rest of it comes."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are complete now, without their ends and without empty ones."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for part in complete:
            line = b"".join((*self._parts, part))
            self._parts, self._held = [], 0
            if line.strip():
                lines.append(line)
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
        if self._held > self._max_line:
            raise LineTooLong(f"a line of more than {self._max_line} bytes")
        return lines
