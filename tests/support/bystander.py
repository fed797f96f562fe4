"""A pod and its neighbour that talk all the time, and notice the smallest loss.

Each side is a process of its own, `python -m tests.support.bystander NETNS PEER_IP`. Both do the same: one
established TCP connection and one UDP socket carry numbered messages to the other side, a millisecond
apart, and new connections are made in a loop, each with a byte there and back. Whatever happens to the pod
meanwhile, every message must arrive, in order, and every connect must succeed.
"""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.support.load import Running, say
from tests.support.netns import Namespace
from tests.support.nodes import wait_for
from zproxy.net.netns import Netns, setns

STREAM, ECHO, DATAGRAMS = 7501, 7502, 7503
PACE_S: Final = 0.001
PATIENCE_S: Final = 10.0
WARM: Final = 20
"""Messages of each kind, and connects, before traffic counts as running."""
_NUMBER: Final = struct.Struct("!Q")
_ROOT: Final = Path(__file__).parents[2]


@dataclass(slots=True)
class Seen:
    """What one side has done and noticed so far."""

    stream_sent: int = 0
    stream_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    connects: int = 0
    slowest_ms: float = 0.0
    """Of the connects, the byte there and back included."""
    failures: list[str] = field(default_factory=list)


class Side:
    """One of the two. Every thread writes fields of `seen` that are its own."""

    def __init__(self, peer: str) -> None:
        self.seen = Seen()
        self._peer = peer
        self._stop = threading.Event()
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        self._datagrams = socket.socket(family, socket.SOCK_DGRAM)
        self._datagrams.bind(("", DATAGRAMS))
        for port, serve in ((STREAM, self._take_stream), (ECHO, self._echo)):
            listener = socket.create_server(("", port), family=family, backlog=256)
            self._start(self._accept, listener, serve)
        self._start(self._take_datagrams)

    def dial(self) -> None:
        """Begin to talk; the other side listens already."""
        stream = socket.create_connection((self._peer, STREAM), PATIENCE_S)
        self._start(self._send_stream, stream)
        self._start(self._send_datagrams)
        self._start(self._connect)

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=self._noting, args=(work, *arguments), daemon=True).start()

    def _noting(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except OSError as error:
            self.seen.failures.append(f"{work.__name__.strip('_')}: {error}")

    def _accept(self, listener: socket.socket, serve: Callable[..., None]) -> None:
        while True:
            accepted, _ = listener.accept()
            self._start(serve, accepted)

    def _take_stream(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream:
            while message := stream.read(_NUMBER.size):
                self._check("message", message, self.seen.stream_received)
                self.seen.stream_received += 1

    def _take_datagrams(self) -> None:
        while True:
            self._check("datagram", self._datagrams.recv(64), self.seen.datagrams_received)
            self.seen.datagrams_received += 1

    def _check(self, what: str, message: bytes, wanted: int) -> None:
        if message != _NUMBER.pack(wanted):
            self.seen.failures.append(f"{what} {message.hex()} came instead of {wanted}")

    def _echo(self, sock: socket.socket) -> None:
        with sock:
            sock.sendall(sock.recv(1))

    def _send_stream(self, sock: socket.socket) -> None:
        with sock:
            while not self._stop.wait(PACE_S):
                self.seen.stream_sent += 1  # first, or it is received before it counts as sent
                sock.sendall(_NUMBER.pack(self.seen.stream_sent - 1))

    def _send_datagrams(self) -> None:
        while not self._stop.wait(PACE_S):
            self.seen.datagrams_sent += 1
            self._datagrams.sendto(_NUMBER.pack(self.seen.datagrams_sent - 1), (self._peer, DATAGRAMS))

    def _connect(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with socket.create_connection((self._peer, ECHO), PATIENCE_S) as sock:
                    sock.sendall(b"?")
                    if sock.recv(1) != b"?":
                        self.seen.failures.append(f"connect {self.seen.connects}: ended without an answer")
            except OSError as error:
                self.seen.failures.append(f"connect {self.seen.connects}: {error}")
            self.seen.connects += 1
            self.seen.slowest_ms = max(self.seen.slowest_ms, (time.monotonic() - began) * 1e3)


class Traffic:
    """Both sides, while they run."""

    def __init__(self, pod: Running, peer: Running) -> None:
        self._sides = (pod, peer)

    def look(self) -> tuple[Seen, Seen]:
        """Return what the pod and the peer have seen so far."""
        pod, peer = (Seen(**json.loads(_ask(side, "look"))) for side in self._sides)
        return pod, peer

    def goes_on(self) -> None:
        """Wait until WARM more messages of each kind have come and connects have been made, or one failed."""
        before = self.look()

        def is_warm() -> bool:
            now = self.look()
            return any(side.failures for side in now) or min(map(_progress, before, now)) >= WARM

        wait_for(is_warm, f"traffic goes on: {before}")

    def end(self) -> tuple[Seen, Seen]:
        """Stop both, wait for what is under way, and return what they have seen.

        Fails when something is lost, out of order, refused or reset.
        """
        for side in self._sides:
            _ask(side, "stop")
        with contextlib.suppress(AssertionError):  # what is missing is said below
            wait_for(lambda: not _missing(*self.look()), "everything has arrived", 3)
        pod, peer = self.look()
        assert pod.failures == [], f"the pod: {pod.failures[:5]}"
        assert peer.failures == [], f"the pod's neighbour: {peer.failures[:5]}"
        assert not _missing(pod, peer), f"lost: {_missing(pod, peer)}"
        return pod, peer


def _progress(before: Seen, now: Seen) -> int:
    return min(
        now.stream_received - before.stream_received,
        now.datagrams_received - before.datagrams_received,
        now.connects - before.connects,
    )


def _missing(pod: Seen, peer: Seen) -> list[str]:
    return [
        f"{sender.stream_sent - taker.stream_received} messages and "
        f"{sender.datagrams_sent - taker.datagrams_received} datagrams {way}"
        for way, sender, taker in (("from the pod", pod, peer), ("to the pod", peer, pod))
        if (sender.stream_sent, sender.datagrams_sent) != (taker.stream_received, taker.datagrams_received)
    ]


def _ask(side: Running, command: str) -> str:
    side.command(command)
    return side.line()


@contextmanager
def traffic(pod: Namespace, peer: Namespace, *, v6: bool = False) -> Iterator[Traffic]:
    """Let `pod` and `peer` talk for the block; it begins when everything has been said a few times."""
    with ExitStack() as stack:
        to = (peer.ip6, pod.ip6) if v6 else (peer.ip4, pod.ip4)
        sides = [stack.enter_context(_running(side, ip)) for side, ip in zip((pod, peer), to, strict=True)]
        assert [side.line() for side in sides] == ["listening", "listening"]
        for side in sides:
            _ask(side, "dial")
        made = Traffic(*sides)
        made.goes_on()
        yield made


@contextmanager
def _running(at: Namespace, peer: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.support.bystander", at.name, peer]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def main(netns: str, peer: str) -> None:
    with Netns.named(netns) as here:
        setns(here.fd)
    side = Side(peer)
    say("listening")
    for line in sys.stdin:
        command = line.strip()
        if command == "dial":
            side.dial()
        elif command == "stop":
            side.stop()
        say(json.dumps(asdict(side.seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
