"""Bad clients at a live 15008, in a pod of a real daemon: each is refused as documented, once, and counted.

They come from a pod of their own, which is enrolled nowhere, while a connection between two others goes on.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hpack import Decoder

from tests.support.ca import CLIENT, SpiffeCa, spiffe
from tests.support.frame_peer import HELLO, frame
from tests.support.nodes import wait_for
from tests.support.stranger import PORT, STRANGER, Scene, read_all, strange_scene, until, until_cut
from zproxy.model.credentials import Credentials
from zproxy.wire import frames
from zproxy.wire.errors import ErrorCode
from zproxy.wire.headers import connect_block

pytestmark = pytest.mark.root

TLS, H2 = "TLS_FAILURE", "H2_HANDSHAKE_FAILURE"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with strange_scene(tmp_path_factory.mktemp("nodes")) as made:
        yield made


class Outcome:
    """Counts before and after: one line, one count of one label, and bystanders who notice nothing."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        wait_for(scene.is_quiet, "what was before has ended and is in the log")
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
    until_cut(peer)
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
        read_all(sock)
    outcome.is_refused(TLS, "error=")


def test_http_1_inside_tls_is_no_http_2(scene: Scene) -> None:
    outcome = Outcome(scene)
    peer = scene.peer()
    peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    until_cut(peer)
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
    wait_for(lambda: not scene.tunnels(), "curl's tunnel ends")
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
    until(peer, lambda: any(kind == frames.HEADERS for kind, *_ in peer.heard))
    (answer,) = [payload for kind, _, _, payload in peer.heard if kind == frames.HEADERS]
    assert [bytes(value) for _, value in Decoder().decode(answer, raw=True)][:1] == [b"%d" % status]
    assert peer.goaway is None
    peer.close()
    wait_for(lambda: not scene.tunnels(), "the tunnel ends")
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
    until_cut(peer)
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
    until_cut(peer)
    scene.exchange()
    wait_for(lambda: scene.reasons().get(H2, 0) > faults, "the fault is counted")
    wait_for(lambda: any("streams reset before their answer" in line for line in scene.lines()), "its line")


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
    wait_for(lambda: not scene.tunnels(), "the slots are free again")
