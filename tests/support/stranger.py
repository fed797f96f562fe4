"""A stranger at the 15008 of a live daemon: it is enrolled nowhere, and two pods beside it go on talking."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.ca import CLIENT, SpiffeCa
from tests.support.frame_peer import FramePeer
from tests.support.netns import Namespace, ip, namespace
from tests.support.nodes import App, TwoNodes, enduring, two_nodes, wait_for
from zproxy.identity.rootstore import CERTIFICATE_FILE, KEY_FILE
from zproxy.model.credentials import Credentials

PORT = 15008
STRANGER, GATE = "10.99.77.1", "10.99.77.2"
MEMORY_KB = 48 << 10
"""By how much all of this may make the daemon grow; one HPACK bomb alone is after five times as much."""


class Scene(NamedTuple):
    """Two enrolled pods that talk, and a stranger who can reach one of them."""

    nodes: TwoNodes
    ca: SpiffeCa
    stranger: Namespace
    near: socket.socket
    directory: Path

    def dial(self) -> socket.socket:
        sock = self.stranger.socket()
        sock.connect((self.nodes.server.ip4, PORT))
        return sock

    def peer(self, credentials: Credentials | None = None) -> FramePeer:
        return FramePeer(self.dial(), credentials or self.ca.credentials(CLIENT))

    def lines(self) -> list[str]:
        """Access log lines that are about the stranger."""
        return [line for line in self.nodes.b.lines(f"src.addr={STRANGER}:") if "\taccess\t" in line]

    def is_quiet(self) -> bool:
        """Whether no stranger is left, and the log, which is written behind, has a line of every end."""
        status = self.nodes.b.client.call("status")
        written = self.nodes.b.lines("\taccess\t")
        return not self.tunnels() and len(written) == status["connections_closed_total"]

    def reasons(self) -> dict[str, int]:
        return dict(self.nodes.b.client.call("status")["connections_failed_by_reason"])

    def exchange(self) -> None:
        """The bystanders say something to each other."""
        self.near.sendall(b"still there?")
        assert self.near.recv(100) == b"still there?"

    def pem(self, credentials: Credentials) -> str:
        path = self.directory / "client.pem"
        path.touch(0o600)
        path.write_bytes(credentials.certificate_chain + credentials.private_key)
        return str(path)

    def tunnels(self) -> list[object]:
        """Rows of the tunnels that the stranger has."""
        return [r for r in self.nodes.b.client.call("tunnels") if r["remote"].startswith(STRANGER)]


@contextmanager
def strange_scene(directory: Path) -> Iterator[Scene]:
    """Make it; at its end the bystanders still talk, and the daemon has not grown."""
    ca = SpiffeCa()
    (directory / "ca").mkdir(0o700)
    key = directory / "ca" / KEY_FILE
    key.touch(0o600)
    key.write_bytes(ca._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / "ca" / CERTIFICATE_FILE).write_bytes(ca.roots)
    with ExitStack() as stack:
        nodes = stack.enter_context(two_nodes(directory))
        stranger = stack.enter_context(namespace("stranger"))
        _join(stranger, nodes.server)
        app = App(nodes.server, 7300, enduring(_echo))
        stack.callback(app.close)
        near = stack.enter_context(nodes.dial(7300))
        scene = Scene(nodes, ca, stranger, near, directory)
        scene.exchange()
        before = _rss(nodes)
        yield scene
        scene.exchange()
        assert _rss(nodes) - before < MEMORY_KB
        near.close()


def _echo(sock: socket.socket, _: object) -> None:
    sock.settimeout(None)
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def _rss(nodes: TwoNodes) -> int:
    assert nodes.b.process is not None
    status = Path(f"/proc/{nodes.b.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def _join(stranger: Namespace, server: Namespace) -> None:
    ends = ("eth9", "netns", stranger.name, "type", "veth", "peer", "name", "eth9", "netns", server.name)
    ip("link", "add", *ends)
    for side, address in ((stranger, STRANGER), (server, GATE)):
        ip("-n", side.name, "link", "set", "eth9", "addrgenmode", "none")
        ip("-n", side.name, "addr", "add", f"{address}/24", "dev", "eth9")
        ip("-n", side.name, "link", "set", "eth9", "up")
    ip("-n", stranger.name, "route", "add", f"{server.ip4}/32", "via", GATE)


def until(peer: FramePeer, condition: Callable[[], bool]) -> None:
    """Let the peer move until the condition holds."""

    def look() -> bool:
        peer.step()
        return condition()

    wait_for(look, "what the peer waits for")


def until_cut(peer: FramePeer) -> None:
    """Wait until the daemon has ended the peer's connection."""
    until(peer, lambda: peer.is_cut)
    peer.close()


def read_all(sock: socket.socket) -> None:
    """Wait until the daemon has ended the connection."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
