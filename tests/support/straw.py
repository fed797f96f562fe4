"""Steering with nothing behind it: a node's hooks in the kernel, and the listeners they lead to."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.netns import PREFIX, Namespace
from zproxy.config import PIN_ROOT
from zproxy.model import ports
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.model.pod import PodOptions
from zproxy.steering import source, syscall
from zproxy.steering.layout import COOKIE, PODSTAT
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins, ensure_bpffs
from zproxy.steering.steering import PodSteering, Steering, remove

SO_ORIGINAL_DST = 80


class Arrival(NamedTuple):
    """One accepted connection: who dialled, what they dialled, and the address that took it."""

    sock: socket.socket
    peer: Endpoint
    original: Endpoint | None
    local: Endpoint

    @classmethod
    def take(cls, listener: socket.socket) -> "Arrival":
        """Accept, waiting for as long as the listener's timeout."""
        sock, peer = listener.accept()
        return cls(sock, endpoint(peer), original_destination(sock), endpoint(sock.getsockname()))


class Straw:
    """A pod's listeners on 15001 and 15006."""

    def __init__(self, pod: Namespace) -> None:
        self.pod = pod
        self.outbound = pod.listen(ports.OUTBOUND)
        self.plaintext = pod.listen(ports.INBOUND_PLAINTEXT)

    def steering(self, *, ips: tuple[str, ...] | None = None) -> PodSteering:
        """Return what Steering.attach is to be given."""
        return PodSteering(
            netns=self.pod.netns,
            cookie=self.pod.netns.cookie(),
            name=f"test/{self.pod.name}",
            uid=f"uid-of-{self.pod.name}",
            ips=self.pod.ips if ips is None else ips,
            interfaces=(self.pod.interface,),
            plaintext_listener=self.plaintext.fileno(),
            options=PodOptions(dns=False),  # there is nobody who would answer
        )

    def close(self) -> None:
        """Close both listeners."""
        self.outbound.close()
        self.plaintext.close()


@contextmanager
def node_steering(label: str = "bpf") -> Iterator[Steering]:
    """Open a node's steering under a name of this process, and take it down with its pins."""
    node = f"{PREFIX}{label}"
    try:
        steering = Steering.open(node)
        try:
            yield steering
        finally:
            steering.close()
    finally:
        remove(node)


@contextmanager
def variant_steering(label: str, flags: Sequence[str]) -> Iterator[Steering]:
    """Like `node_steering`, with programs that are compiled as for a kernel that has just what `flags` say.

    They are signed as this kernel's own, so that they are adopted as they are.
    """
    pins = NodePins(f"{PREFIX}{label}")
    ensure_bpffs(PIN_ROOT)
    for directory in (pins.maps, pins.programs, pins.links, pins.pods):
        directory.mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from zproxy.steering import loader, source;"
        f"source.cflags = lambda: (*source.CFLAGS, *{tuple(flags)!r});"
        "loader.load(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    try:
        command = [sys.executable, "-c", script, str(pins.maps), str(pins.programs)]
        subprocess.run(command, cwd=Path(__file__).parents[2], timeout=60, check=True, capture_output=True)
        objects = open_maps(pins)
        objects.sign(source.build_hash(source.flatten(source.directory()), source.cflags()))
        objects.close()
        with node_steering(label) as steering:
            yield steering
    finally:
        remove(f"{PREFIX}{label}")


@contextmanager
def attached(steering: Steering, pod: Namespace, ips: tuple[str, ...] | None = None) -> Iterator[Straw]:
    """Give `pod` a straw and switch its steering on for the block."""
    with ExitStack() as stack:
        straw = Straw(pod)
        stack.callback(straw.close)
        wanted = straw.steering(ips=ips)
        stack.callback(steering.detach, wanted.cookie)
        steering.attach(wanted)
        yield straw


def dial(pod: Namespace, ip: str, port: int) -> socket.socket:
    """Connect from inside `pod`; the family is the address's."""
    sock = pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    try:
        sock.connect((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def size_of(name: str, label: str = "bpf") -> int:
    """Return how many elements a hash map of `node_steering(label)` has."""
    objects = open_maps(NodePins(f"{PREFIX}{label}"))
    try:
        return sum(1 for _ in objects.elements(name))
    finally:
        objects.close()


def counters_of(pod: Namespace, label: str = "bpf") -> dict[str, int]:
    """Return what `node_steering(label)` counts of a pod that it steers."""
    objects = open_maps(NodePins(f"{PREFIX}{label}"))
    try:
        key = COOKIE.pack(cookie=pod.netns.cookie())
        raw = syscall.map_lookup(objects.maps["zp_podstat"], key, PODSTAT.size)
        assert raw is not None, f"{pod.name} is not steered"
        return PODSTAT.unpack(raw)
    finally:
        objects.close()


def endpoint(address: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """Return a socket address in canonical form."""
    return Endpoint(canonical_ip(address[0]), address[1])


def original_destination(sock: socket.socket) -> Endpoint | None:
    """Ask the kernel as a proxy does: SO_ORIGINAL_DST of either family, None when neither answers."""
    for level, size, family in (
        (socket.SOL_IP, 16, socket.AF_INET),
        (socket.IPPROTO_IPV6, 28, socket.AF_INET6),
    ):
        try:
            raw = sock.getsockopt(level, SO_ORIGINAL_DST, size)
        except OSError:
            continue
        assert (len(raw), int.from_bytes(raw[:2], "little")) == (size, family)
        ip = raw[4:8] if family == socket.AF_INET else raw[8:24]
        return Endpoint(socket.inet_ntop(family, ip), int.from_bytes(raw[2:4], "big"))
    return None
