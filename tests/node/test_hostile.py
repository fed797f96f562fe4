"""Bad clients at a live 15008, in a pod of a real daemon: each is refused as documented, once, and counted.

They come from a pod of their own, which is enrolled nowhere, while a connection between two others goes on.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hpack import Decoder

from tests.support.ca import CLIENT, SpiffeCa, spiffe
from tests.support.frame_peer import HELLO, FramePeer, frame
from tests.support.netns import Namespace, ip, namespace
from tests.support.nodes import App, TwoNodes, two_nodes, wait_for
from zproxy.identity.rootstore import CERTIFICATE_FILE, KEY_FILE
from zproxy.model.credentials import Credentials
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import connect_block

pytestmark = pytest.mark.root

PORT = 15008
STRANGER, GATE = "10.99.77.1", "10.99.77.2"
TLS, H2 = "TLS_FAILURE", "H2_HANDSHAKE_FAILURE"
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


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("nodes")
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
        app = App(nodes.server, 7300, _echo)
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


class Outcome:
    """Counts before and after: one line, one count of one label, and bystanders who notice nothing."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._lines = len(scene.lines())
        self._reasons = scene.reasons()

    def is_refused(self, reason: str, sentence: str) -> None:
        scene = self._scene
        scene.exchange()
        wait_for(lambda: len(scene.lines()) > self._lines, f"a line with {sentence!r}")
        (line,) = scene.lines()[self._lines :]
        assert "\twarn\taccess\tconnection failed\t" in line
        assert f"dst.addr={scene.nodes.server.ip4}:{PORT} " in line
        assert sentence in line
        grown = {
            label: count - self._reasons.get(label, 0)
            for label, count in scene.reasons().items()
            if count != self._reasons.get(label, 0)
        }
        assert grown == {reason: 1}
        row = [r for r in scene.nodes.b.client.call("connections") if r["src"].startswith(STRANGER)][-1]
        assert (row["state"], row["reason"]) == ("failed", reason)
        assert not [r for r in scene.nodes.b.client.call("tunnels") if r["remote"].startswith(STRANGER)]


def run(scene: Scene, *command: str) -> str:
    """Run a program in the stranger's pod, with nothing to say on its stdin; return all that it printed."""
    done = subprocess.run(
        ["ip", "netns", "exec", scene.stranger.name, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def s_client(scene: Scene, credentials: Credentials | None, *more: str) -> str:
    """Shake hands by OpenSSL's own client, which with -ign_eof reads until the end."""
    command = ["openssl", "s_client", "-connect", f"{scene.nodes.server.ip4}:{PORT}", "-ign_eof", *more]
    if credentials is not None:
        pem = scene.pem(credentials)
        command += ["-cert", pem, "-key", pem]
    return run(scene, *command)


def good(ca: SpiffeCa) -> Credentials:
    return ca.credentials(CLIENT)


def expired(ca: SpiffeCa) -> Credentials:
    return ca.expired(CLIENT)


def not_yet_valid(ca: SpiffeCa) -> Credentials:
    return ca.not_yet_valid(CLIENT)


def foreign(ca: SpiffeCa) -> Credentials:
    return SpiffeCa("other").credentials(CLIENT, roots=ca.roots)


Issue = Callable[[SpiffeCa], Credentials] | None
H2_OFFER = ("-alpn", "h2")


@pytest.mark.parametrize(
    ("issue", "more", "alert", "sentence"),
    [
        (None, H2_OFFER, "alert certificate required", "the peer sent no certificate"),
        (foreign, H2_OFFER, "alert unknown ca", "signed by an unknown CA"),
        (expired, H2_OFFER, "alert certificate expired", "has expired"),
        (not_yet_valid, H2_OFFER, "alert bad certificate", "not valid yet"),
        (good, (*H2_OFFER, "-tls1_2"), "alert protocol version", "does not speak TLS 1.3"),
        (good, ("-alpn", "http/1.1"), "alert no application protocol", "does not offer ALPN h2"),
        (good, (), "No ALPN negotiated", "ALPN h2"),
    ],
    ids=["no certificate", "wrong CA", "expired", "not yet valid", "TLS 1.2", "ALPN http/1.1", "no ALPN"],
)
def test_tls_that_is_not_ours_is_refused_by_its_alert(
    scene: Scene, issue: Issue, more: tuple[str, ...], alert: str, sentence: str
) -> None:
    outcome = Outcome(scene)
    assert alert in s_client(scene, issue(scene.ca) if issue else None, *more)
    outcome.is_refused(TLS, sentence)


@pytest.mark.parametrize(
    ("uris", "sentence"),
    [
        ((spiffe("demo", "client", "elsewhere.example"),), "of trust domain elsewhere.example; this pod"),
        (("https://example.org/",), "presented no SPIFFE identity (https://example.org/)"),
        ((), "presented no SPIFFE identity (no URI SAN)"),
    ],
    ids=["wrong trust domain", "no SPIFFE URI", "no SAN"],
)
def test_an_identity_that_is_not_ours_is_told_by_goaway(
    scene: Scene, uris: tuple[str, ...], sentence: str
) -> None:
    outcome = Outcome(scene)
    peer = scene.peer(scene.ca.credentials(*uris))
    _until_cut(peer)
    assert peer.goaway is not None
    assert peer.goaway[0] == ErrorCode.INADEQUATE_SECURITY
    assert sentence in f"{peer.goaway[1]}"
    outcome.is_refused(TLS, sentence)


def test_plain_http_is_named_as_that(scene: Scene) -> None:
    outcome = Outcome(scene)
    assert "curl: (" in run(scene, "curl", "-sS", "-m", "5", f"http://{scene.nodes.server.ip4}:{PORT}/")
    outcome.is_refused(TLS, "the peer does not speak TLS on this port")


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"?" * 100, b"SSH-2.0-x\r\n"])
def test_garbage_is_refused(scene: Scene, garbage: bytes) -> None:
    outcome = Outcome(scene)
    with scene.dial() as sock:
        sock.sendall(garbage)
        _read_all(sock)
    outcome.is_refused(TLS, "error=")


def test_http_1_inside_tls_is_no_http_2(scene: Scene) -> None:
    outcome = Outcome(scene)
    peer = scene.peer()
    peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    _until_cut(peer)
    assert peer.goaway is not None
    assert peer.goaway[0] == ErrorCode.PROTOCOL_ERROR
    outcome.is_refused(H2, "HTTP/2 PROTOCOL_ERROR")


def test_get_is_not_connect(scene: Scene) -> None:
    outcome = Outcome(scene)
    pem = scene.pem(good(scene.ca))
    url = f"https://{scene.nodes.server.ip4}:{PORT}/"
    options = ("-sS", "-k", "--http2", "-m", "5", "--cert", pem, "--key", pem)
    shown = ("-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    assert run(scene, "curl", *options, *shown, url) == "2 400"
    wait_for(lambda: not _tunnels(scene), "curl's tunnel ends")
    outcome.is_refused("DENY", "expected method CONNECT")


@pytest.mark.parametrize(
    ("authority", "status", "reason", "sentence"),
    [
        ("10.1.2.3:80", 400, "DENY", "ip mismatch: {ip} != 10.1.2.3"),
        ("{ip}", 400, "DENY", "no valid authority"),
        ("{ip}:0", 400, "DENY", "no valid authority"),
        ("{ip}:65536", 400, "DENY", "no valid authority"),
        ("{ip}:http", 400, "DENY", "no valid authority"),
        (":80", 400, "DENY", "no valid authority"),
        ("[::1:80", 400, "DENY", "invalid CONNECT address"),
        ("[::1]:80", 400, "DENY", "ip mismatch"),
        ("user@{ip}:80", 400, "DENY", "invalid CONNECT address"),
        ("a b:80", 400, "DENY", "no valid authority"),
        ("web.demo.svc.cluster.local:80", 503, "CONNECT", "no service or workload for hostname"),
        ("{ip}:15001", 503, "CONNECT", "attempted recursive call to ourselves"),
        ("{ip}:15006", 503, "CONNECT", "attempted recursive call to ourselves"),
        ("{ip}:15008", 503, "CONNECT", "attempted recursive call to ourselves"),
        ("{ip}:4", 503, "CONNECT", "Connection refused"),
    ],
)
def test_an_authority_that_may_not_pass_is_answered(
    scene: Scene, authority: str, status: int, reason: str, sentence: str
) -> None:
    outcome = Outcome(scene)
    server = scene.nodes.server.ip4
    peer = scene.peer()
    block = connect_block(authority.format(ip=server))
    peer.send(HELLO + frame(frames.HEADERS, frames.END_HEADERS, 1, block))
    _until(peer, lambda: any(kind == frames.HEADERS for kind, *_ in peer.heard))
    (answer,) = [payload for kind, _, _, payload in peer.heard if kind == frames.HEADERS]
    assert [bytes(value) for _, value in Decoder().decode(answer, raw=True)][:1] == [b"%d" % status]
    assert peer.goaway is None
    peer.close()
    wait_for(lambda: not _tunnels(scene), "the tunnel ends")
    if "refused" in sentence:  # the only one that came as far as the app: its peers are known
        wait_for(lambda: any(f"dst.hbone_addr={server}:4 " in line for line in scene.lines()), "its line")
        assert sentence in scene.lines()[-1]
        return
    outcome.is_refused(reason, sentence.format(ip=server))


FLOODS = {
    "PING": frame(frames.PING, 0, 0, bytes(8)) * 50_000,
    "CONTINUATION": frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1, b"x") * 10_000,
    "oversized": frames.head(1 << 23, frames.HEADERS, frames.END_HEADERS, 1) + bytes(1 << 20),
    "HPACK bomb": frame(
        frames.HEADERS, frames.END_HEADERS, 1, b"\x40\x01x\x7f\xa1\x1e" + bytes(4000) + b"\xbe" * 60_000
    ),
    "window": frames.window_update(0, (1 << 31) - 1),
    "stray DATA": frame(frames.DATA, 0, 77, b"?"),
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_costs_the_peer_its_tunnel(scene: Scene, case: str) -> None:
    outcome = Outcome(scene)
    peer = scene.peer()
    peer.send(HELLO + FLOODS[case])
    _until_cut(peer)
    outcome.is_refused(H2, "HTTP/2 ")


def test_rapid_reset_costs_the_peer_its_tunnel(scene: Scene) -> None:
    """CVE-2023-44487, with a real app behind it."""
    faults = scene.reasons().get(H2, 0)
    block = connect_block(f"{scene.nodes.server.ip4}:7300")
    peer = scene.peer()
    peer.send(
        HELLO
        + b"".join(
            frame(frames.HEADERS, frames.END_HEADERS, n, block) + frames.rst_stream(n, 8)
            for n in range(1, 20_000, 2)
        )
    )
    _until_cut(peer)
    scene.exchange()
    wait_for(lambda: scene.reasons().get(H2, 0) > faults, "the fault is counted")
    wait_for(lambda: any("streams reset before their answer" in line for line in scene.lines()), "its line")


def test_who_stalls_loses_its_place_at_the_deadline(scene: Scene) -> None:
    """Silent from the start, in the middle of the handshake, before the preface, and before the ACK."""
    lines = len(scene.lines())
    silent, halting = scene.dial(), scene.dial()
    halting.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    mute, rude = scene.peer(), scene.peer()
    rude.send(frames.PREFACE + frame(frames.SETTINGS))
    began = time.monotonic()

    def have_gone() -> bool:
        mute.step()
        rude.step()
        return len(scene.lines()) >= lines + 4

    _until(mute, lambda: mute.is_secured)
    wait_for(have_gone, "four lines", 15)
    assert time.monotonic() - began > 9
    scene.exchange()
    gone = scene.lines()[lines:]
    assert len(gone) == 4
    assert sum("TLS and HTTP/2 handshake took longer than 10 s" in line for line in gone) == 3
    assert sum("SETTINGS acknowledgement took longer than 10 s" in line for line in gone) == 1
    for sock in (silent, halting):
        with sock:
            _read_all(sock)
    assert rude.goaway is not None
    assert rude.goaway[0] == ErrorCode.SETTINGS_TIMEOUT
    for peer in (mute, rude):
        peer.close()


def test_one_peer_cannot_take_every_handshake_slot(scene: Scene) -> None:
    lines = len(scene.lines())
    with ExitStack() as stack:
        for _ in range(140):
            stack.enter_context(scene.dial())
        wait_for(lambda: len(scene.lines()) >= lines + 12, "those beyond 128 are refused")
        assert all("128 handshakes with" in line for line in scene.lines()[lines : lines + 12])
        scene.exchange()
        with scene.nodes.dial(7300) as another:
            another.sendall(b"a new one")
            assert another.recv(100) == b"a new one"
    wait_for(lambda: not _tunnels(scene), "the slots are free again")


def _tunnels(scene: Scene) -> list[object]:
    return [r for r in scene.nodes.b.client.call("tunnels") if r["remote"].startswith(STRANGER)]


def _until(peer: FramePeer, condition: Callable[[], bool]) -> None:
    def look() -> bool:
        peer.step()
        return condition()

    wait_for(look, "what the peer waits for")


def _until_cut(peer: FramePeer) -> None:
    _until(peer, lambda: peer.is_cut)
    peer.close()


def _read_all(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
