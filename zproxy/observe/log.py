"""Log lines: ztunnel's plain format, written in batches by a thread of its own.

A stalled log sink NEVER stalls the data plane: beyond QUEUE_LINES lines are dropped and counted. Nor does the
thread wake for each line: it would take the interpreter from the data plane ten thousand times a second.
"""

import json
import logging
import os
import threading
import time
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

QUEUE_LINES: Final = 10_000
COLLECT_S: Final = 0.02
"""How long lines are collected before they are written; all that a line can be late."""
_DRAIN_S: Final = 2.0
_LEVELS: Final = {"WARNING": "warn", "CRITICAL": "error"}


def timestamp(nanoseconds: int | None = None) -> str:
    """Return a wall-clock time (now by default) as RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    return f"{_to_the_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def quoted(text: str) -> str:
    """Return `text` in double quotes, with what would break a line or a quote escaped."""
    return json.dumps(text, ensure_ascii=False)


class LineWriter:
    """A bounded queue of lines and the thread that writes them to a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        """Set from the first line on until its batch is about to be written, so most lines find it set."""
        self._closing = threading.Event()
        self._counting = threading.Lock()
        self.dropped = 0
        """Lines lost because the sink was too slow."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue one line (without newline); from any thread, never blocks.

        Threads that see the last free place at once all take it: the bound may be passed by their number.
        """
        if len(self._lines) >= QUEUE_LINES:
            self._drop(1)
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is queued, for at most _DRAIN_S seconds, and end the thread."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_DRAIN_S)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            is_closed = self._closing.wait(COLLECT_S)
            self._wake.clear()
            self._write_all()
            if is_closed and not self._lines:
                return

    def _write_all(self) -> None:
        while self._lines:
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), 256))]
            data = memoryview(("\n".join(batch) + "\n").encode("utf-8", "replace"))
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self._drop(len(batch))  # the sink is gone (EPIPE); the proxy goes on without it

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count


class LineHandler(logging.Handler):
    """Carries standard logging records to the same lines."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Format one record as timestamp, level, scope, message, separated by tabs."""
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        text = f"{timestamp(int(record.created * 1e9))}\t{level}\t{record.name}\t{record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._writer.write(text)


def set_up(writer: LineWriter, *, verbose: bool) -> None:
    """Send all of zproxy's log records to `writer`."""
    root = logging.getLogger("zproxy")
    root.handlers[:] = [LineHandler(writer)]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
