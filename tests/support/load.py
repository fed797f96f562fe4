"""Apps under load, each a process of its own: `python -m tests.support.load NETNS serve|churn|hold [COUNT]`.

Raw sockets and one epoll set, so that the generator costs less than what it drives. A process talks to its
test in lines: it says what it has done on its standard output, and `hold` takes commands on its input.
"""

import contextlib
import json
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.netns import Namespace
from zproxy.net.netns import Netns, setns

ECHO, BREAK, NOBODY = 7401, 7402, 7403
"""Ports of the server: sends back what it gets; resets when it gets something; does not exist."""
MESSAGE: Final = bytes(range(256)) * 4
IN_FLIGHT: Final = 64
WAVE: Final = 200
"""Connections that `hold` opens before it waits for all of them: less than any listener's backlog."""
PATIENCE_S: Final = 20.0
KINDS: Final = ("plain",) * 6 + ("half-closed", "reset", "broken by the server", "refused")
"""What becomes of connection number n is KINDS[n % 10]."""
_RESET: Final = struct.pack("ii", 1, 0)
_ROOT: Final = Path(__file__).parents[2]


def close(sock: socket.socket, *, with_reset: bool = False) -> None:
    if with_reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class Server:
    """Serves ECHO and BREAK until it is ended."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._listeners = {sock.fileno(): sock for sock in map(_listen, (ECHO, BREAK))}
        self._breaking = next(fd for fd, sock in self._listeners.items() if sock.getsockname()[1] == BREAK)
        self._open: dict[int, socket.socket] = {}
        self._to_break: set[int] = set()
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        say("listening")
        while True:
            for fd, _ in self._epoll.poll():
                if fd in self._listeners:
                    self._accept(fd)
                else:
                    self._serve(fd)

    def _accept(self, listener: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listeners[listener].accept()
                sock.setblocking(False)
                fd = sock.fileno()
                self._open[fd] = sock
                if listener == self._breaking:
                    self._to_break.add(fd)
                self._epoll.register(fd, select.EPOLLIN)

    def _serve(self, fd: int) -> None:
        sock = self._open[fd]
        try:
            data = sock.recv(1 << 16)
            if data and fd not in self._to_break:
                sock.sendall(data)
                return
        except ConnectionError:
            data = b""
        del self._open[fd]
        self._to_break.discard(fd)
        close(sock, with_reset=bool(data))


class Churn:
    """Opens `count` connections, IN_FLIGHT at a time, each to its own end; says how they ended."""

    def __init__(self, ip: str, count: int) -> None:
        self._ip = ip
        self._count = count
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, str, bytearray]] = {}
        self._ended: Counter[str] = Counter()

    def run(self) -> None:
        began = time.monotonic()
        started = 0
        while started < self._count or self._open:
            while started < self._count and len(self._open) < IN_FLIGHT:
                self._start(KINDS[started % len(KINDS)])
                started += 1
            ready = self._epoll.poll(PATIENCE_S)
            if not ready:
                sys.exit(f"{len(self._open)} connections have been silent for {PATIENCE_S:g} s")
            for fd, _ in ready:
                self._serve(fd)
        say(json.dumps({"seconds": time.monotonic() - began, "ended": self._ended}))

    def _start(self, kind: str) -> None:
        """A refused one may be reset before connect() or send() is done: whichever hears of it has it."""
        port = {"broken by the server": BREAK, "refused": NOBODY}.get(kind, ECHO)
        try:
            sock = socket.create_connection((self._ip, port), PATIENCE_S)
        except ConnectionError as error:
            self._ended[kind if kind == "refused" else f"{kind}, but {error}"] += 1
            return
        sock.setblocking(False)
        fd = sock.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._open[fd] = sock, kind, bytearray()
        try:
            sock.sendall(MESSAGE)
            if kind == "half-closed":
                sock.shutdown(socket.SHUT_WR)
        except ConnectionError as error:
            self._end(fd, kind if kind == "refused" else f"{kind}, but {error}")

    def _serve(self, fd: int) -> None:
        sock, kind, got = self._open[fd]
        try:
            data = sock.recv(1 << 16)
        except ConnectionError:
            self._end(fd, kind if kind in KINDS[-2:] else f"{kind}, but reset")
            return
        got += data
        if not data:
            whole = kind == "half-closed" and got == MESSAGE
            self._end(fd, kind if whole else f"{kind}, but ended after {len(got)} bytes")
        elif len(got) >= len(MESSAGE) and kind in {"plain", "reset"}:
            self._end(fd, kind if got == MESSAGE else f"{kind}, with other bytes")

    def _end(self, fd: int, how: str) -> None:
        sock, kind, _ = self._open.pop(fd)
        self._ended[how] += 1
        close(sock, with_reset=kind == "reset")


def hold(ip: str, count: int) -> None:
    """Open `count` connections and keep them; each line of input makes every one ask and be answered."""
    held: list[socket.socket] = []
    while len(held) < count:
        wave = [socket.create_connection((ip, ECHO), PATIENCE_S) for _ in range(min(WAVE, count - len(held)))]
        ask(wave)
        held += wave
    say("up")
    for _ in sys.stdin:
        say(str(ask(held)))


def ask(held: Sequence[socket.socket]) -> int:
    """Send a byte on each connection; return how many brought it back."""
    answered = 0
    for at in range(0, len(held), WAVE):
        wave = held[at : at + WAVE]
        for number, sock in enumerate(wave):
            sock.sendall(bytes((number,)))
        answered += sum(sock.recv(2) == bytes((number,)) for number, sock in enumerate(wave))
    return answered


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _listen(port: int) -> socket.socket:
    sock = socket.create_server(("", port), backlog=4096)
    sock.setblocking(False)
    return sock


class Running:
    """One such process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        """Wait for the next line that it says; fail with its complaint when it ends instead."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline().strip()
        assert line, f"the load process ended: {self._process.stderr.read()}"
        return line

    def command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def running(pod: Namespace, what: str, *arguments: str) -> Iterator[Running]:
    """Run a load process inside `pod` for the block."""
    command = [sys.executable, "-m", "tests.support.load", pod.name, what, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def main(netns: str, what: str, ip: str = "", count: str = "0") -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    setns(Netns.named(netns).fd)
    if what == "serve":
        Server().run()
    elif what == "churn":
        Churn(ip, int(count)).run()
    else:
        hold(ip, int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
