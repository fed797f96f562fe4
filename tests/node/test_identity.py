"""A peer that is not who it should be gets no byte, and every witness says why."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.nodes import App, TwoNodes, exchange, two_nodes, wait_for
from zproxy.identity.ca import LocalCa
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId

pytestmark = pytest.mark.root

SERVER = SpiffeId("cluster.local", "demo", "server")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """Only the client is enrolled; the server pod holds an impostor on 15008."""
    with two_nodes(tmp_path_factory.mktemp("nodes"), only_client=True) as made:
        yield made


def good(nodes: TwoNodes) -> Credentials:
    return LocalCa.open(nodes.a.ca).issue(SERVER).credentials


def foreign(nodes: TwoNodes, directory: Path) -> Credentials:
    """Signed by a CA of its own; it trusts the mesh's, so that only the client can object."""
    return LocalCa.open(directory / "ca").issue(SERVER).credentials._replace(roots=good(nodes).roots)


def other_identity(nodes: TwoNodes) -> Credentials:
    return LocalCa.open(nodes.a.ca).issue(SERVER._replace(service_account="billing")).credentials


def expired(nodes: TwoNodes) -> Credentials:
    certificate = LocalCa.open(nodes.a.ca).issue(SERVER, timedelta(seconds=1))
    # Valid through its last second, and time(2) may lag a tick behind the clock that is read here.
    dead = certificate.not_after + timedelta(seconds=1.5)
    wait_for(lambda: datetime.now(UTC) >= dead, "the certificate expires")
    return certificate.credentials


class Impostor:
    """A TLS server on 15008 with given credentials that notes every byte it can decrypt."""

    def __init__(self, nodes: TwoNodes, credentials: Credentials, directory: Path) -> None:
        self.received = b""
        self.failures: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2"])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=credentials.roots.decode())
        pem = directory / "impostor.pem"
        pem.touch(0o600)
        pem.write_bytes(credentials.certificate_chain + credentials.private_key)
        self._context.load_cert_chain(pem)
        self.app = App(nodes.server, 15008, self._handle)

    def _handle(self, sock: socket.socket, _: Any) -> None:
        try:
            with self._context.wrap_socket(sock, server_side=True) as secured:
                while data := secured.recv(4096):
                    self.received += data
        except (ssl.SSLError, OSError) as error:
            self.failures.append(str(error))
        finally:
            self.failures.append("ended")


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("foreign", "unknown"),
        ("other_identity", "presented spiffe://cluster.local/ns/demo/sa/billing; expected"),
        ("expired", "expired"),
    ],
)
def test_a_peer_that_is_not_the_expected_one_gets_no_byte(
    nodes: TwoNodes, tmp_path: Path, case: str, sentence: str
) -> None:
    port = {"foreign": 7101, "other_identity": 7102, "expired": 7103}[case]
    credentials = foreign(nodes, tmp_path) if case == "foreign" else globals()[case](nodes)
    impostor = Impostor(nodes, credentials, tmp_path)
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(port), b"the secret")
    wait_for(lambda: "ended" in impostor.failures, "the impostor's connection ends")
    impostor.app.close()
    assert impostor.received == b""
    line = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:{port} ")[0]
    assert "\terror\taccess\t" in line
    assert sentence in line
    assert "bytes_sent=0 bytes_recv=0" in line
    row = next(r for r in nodes.a.client.call("connections") if r["hbone_addr"].endswith(f":{port}"))
    assert (row["state"], row["reason"]) == ("failed", "TLS_FAILURE")
    assert sentence in row["error"]


def test_the_same_peer_with_the_right_certificate_is_spoken_to(nodes: TwoNodes, tmp_path: Path) -> None:
    """The control: the impostor's set-up is sound, so what was refused was refused for its certificate."""
    impostor = Impostor(nodes, good(nodes), tmp_path)
    with nodes.dial(7104) as sock:
        wait_for(lambda: impostor.received.startswith(b"PRI * HTTP/2.0"), "HTTP/2 begins")
        sock.close()
    nodes.a.client.call("unenroll", pod="demo/client")  # ends the tunnel, whose peer never answers
    wait_for(lambda: "ended" in impostor.failures, "the connection ends")
    impostor.app.close()
    nodes.enroll_client()


def test_traffic_of_a_pod_that_is_not_enrolled_is_untouched(nodes: TwoNodes) -> None:
    app = App(nodes.server, 7111, lambda sock, peer: sock.sendall(f"{peer[0]}:{peer[1]}".encode()))
    other = nodes.server.socket()
    other.connect((nodes.server.ip4, 7111))
    mine = other.getsockname()
    assert other.recv(100) == f"::ffff:{mine[0]}:{mine[1]}".encode()
    other.close()
    app.close()
    assert not nodes.b.lines("\taccess\t")
