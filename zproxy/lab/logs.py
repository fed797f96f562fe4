"""What a daemon has written to its log since a moment ago; and access-log lines, taken apart."""

import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import ZproxyError

_FIELD: Final = re.compile(r'([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S*)')
_POLL_S: Final = 0.01
_MAX: Final = 4 << 20
"""Bytes that are read at most: a log that grows by more in a few seconds is not looked through."""


class AccessLine(NamedTuple):
    """One line of the access log."""

    text: str
    """Without its time and level."""
    fields: Mapping[str, str]

    @classmethod
    def of(cls, line: str) -> "AccessLine | None":
        """Return a line taken apart, None when it is of another log."""
        _, _, text = line.partition("\t")
        parts = text.split("\t")
        if len(parts) != 4 or parts[1] != "access":
            return None
        fields = {key: _plain(value) for key, value in _FIELD.findall(parts[3])}
        return cls("\t".join(parts[1:]), fields)

    def get(self, field: str) -> str:
        """Return a field's value; empty where the line has none."""
        return self.fields.get(field, "")


def log_of(pid: int) -> Path | None:
    """Return where a process writes its standard output, None when that is no file but a pipe or the like."""
    path = Path(f"/proc/{pid}/fd/1")
    return path if stat.S_ISREG(path.stat().st_mode) else None


class Tail:
    """The end of a log file, from now on."""

    def __init__(self, path: Path) -> None:
        """Begin at the end of `path`; raise OSError when it cannot be read."""
        self.path = path
        with path.open("rb") as log:
            self._start = log.seek(0, os.SEEK_END)

    def lines(self) -> list[str]:
        """Return the whole lines that came since."""
        with self.path.open("rb") as log:
            log.seek(self._start)
            text = log.read(_MAX)
        return text[: text.rfind(b"\n") + 1].decode(errors="replace").splitlines()

    def wait(self, wanted: Sequence[str], timeout_s: float) -> list[str]:
        """Return the first line with each of the texts; raise ZproxyError when one does not come."""
        deadline = time.monotonic() + timeout_s
        while True:
            lines = self.lines()
            found = [next((line for line in lines if text in line), "") for text in wanted]
            if all(found):
                return found
            if time.monotonic() > deadline:
                missing = wanted[found.index("")]
                raise ZproxyError(f"{self.path} has no line with {missing!r} after {timeout_s:.0f} s")
            time.sleep(_POLL_S)


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
