"""The embedded CA, and what two real TLS ends think of its certificates."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.wallclock import WallClock
from zproxy.errors import IdentityError
from zproxy.identity.ca import LEAF_LIFETIME, LocalCa
from zproxy.identity.certificate import Certificate, utc_now
from zproxy.identity.rootstore import CLOCK_SKEW, KEY_FILE, ROOT_LIFETIME
from zproxy.model.identity import SpiffeId

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def ca(tmp_path: Path, clock: WallClock) -> LocalCa:
    return LocalCa.open(tmp_path / "ca", clock)


def parsed(certificate: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.credentials.certificate_chain)


def test_a_certificate_is_what_it_says(ca: LocalCa, clock: WallClock) -> None:
    certificate = ca.issue(CLIENT)
    inside = parsed(certificate)
    assert certificate.identity == CLIENT
    assert inside.serial_number == certificate.serial
    assert inside.not_valid_before_utc == certificate.not_before == clock.now - CLOCK_SKEW
    assert inside.not_valid_after_utc == certificate.not_after == clock.now + LEAF_LIFETIME
    names = inside.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(CLIENT)]


def test_the_key_belongs_to_the_certificate(ca: LocalCa) -> None:
    certificate = ca.issue(CLIENT)
    key = load_pem_private_key(certificate.credentials.private_key, password=None)
    assert key.public_key() == parsed(certificate).public_key()


def test_every_certificate_has_its_own_key_and_serial(ca: LocalCa) -> None:
    first, second = ca.issue(CLIENT), ca.issue(CLIENT)
    assert first.serial != second.serial
    assert first.credentials.private_key != second.credentials.private_key


def test_the_roots_are_the_ca_itself(ca: LocalCa) -> None:
    certificate = ca.issue(CLIENT)
    assert certificate.credentials.roots == ca.root.pem
    root = x509.load_pem_x509_certificate(ca.root.pem)
    parsed(certificate).verify_directly_issued_by(root)
    assert (ca.root.serial, ca.root.not_after) == (root.serial_number, root.not_valid_after_utc)


def test_daemons_on_one_directory_trust_each_other(ca: LocalCa, tmp_path: Path, clock: WallClock) -> None:
    other = LocalCa.open(tmp_path / "ca", clock)
    parsed(other.issue(CLIENT)).verify_directly_issued_by(x509.load_pem_x509_certificate(ca.root.pem))


def test_a_certificate_never_outlives_the_root(ca: LocalCa, clock: WallClock) -> None:
    clock.advance(ROOT_LIFETIME - timedelta(hours=1))
    assert ca.issue(CLIENT).not_after == ca.root.not_after


def test_an_expired_root_issues_nothing(ca: LocalCa, clock: WallClock) -> None:
    clock.advance(ROOT_LIFETIME)
    with pytest.raises(
        IdentityError, match="the root of the CA expired at 2040-01-01 00:00 UTC; begin a new CA"
    ):
        ca.issue(CLIENT)


@pytest.mark.parametrize(
    "identity",
    [
        SpiffeId("cluster.local", "demo/sa/admin", "x"),
        SpiffeId("cluster.local", "", "client"),
        SpiffeId("Cluster", "demo", "client"),
        SpiffeId("cluster.local", "demo", "a\nb"),
        SpiffeId("cluster.local", "demo", "ä"),
    ],
)
def test_what_is_no_spiffe_id_gets_no_certificate(ca: LocalCa, identity: SpiffeId) -> None:
    with pytest.raises(IdentityError, match="no certificate can be issued"):
        ca.issue(identity)


def test_the_root_key_is_not_in_repr(ca: LocalCa, tmp_path: Path) -> None:
    secret = (tmp_path / "ca" / KEY_FILE).read_text().splitlines()[1]
    assert secret not in repr(ca)
    assert repr(ca) == f"LocalCa(root={ca.root.serial:x})"


class End:
    """One end of mutual TLS 1.3, in memory."""

    def __init__(self, certificate: Certificate, directory: Path, *, is_server: bool) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=certificate.credentials.roots.decode())
        file = directory / f"{certificate.serial:x}.pem"
        file.write_bytes(certificate.credentials.certificate_chain + certificate.credentials.private_key)
        context.load_cert_chain(file)
        self.inbox, self.outbox = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inbox, self.outbox, server_side=is_server)

    def step(self, peer: "End") -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            peer.inbox.write(self.outbox.read())
        return True


def shake(client: End, server: End) -> None:
    while not (client.step(server) & server.step(client)):
        pass


def test_two_pods_of_one_ca_trust_each_other(tmp_path: Path) -> None:
    ca = LocalCa.open(tmp_path / "ca")
    client = End(ca.issue(CLIENT), tmp_path, is_server=False)
    server = End(ca.issue(SERVER), tmp_path, is_server=True)
    shake(client, server)
    seen = (client.tls.getpeercert() or {}, server.tls.getpeercert() or {})
    assert [peer["subjectAltName"] for peer in seen] == [(("URI", str(SERVER)),), (("URI", str(CLIENT)),)]


def test_two_cas_do_not_trust_each_other(tmp_path: Path) -> None:
    client = End(LocalCa.open(tmp_path / "one").issue(CLIENT), tmp_path, is_server=False)
    server = End(LocalCa.open(tmp_path / "two").issue(SERVER), tmp_path, is_server=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake(client, server)


def test_an_expired_certificate_is_not_trusted(tmp_path: Path) -> None:
    ca = LocalCa.open(tmp_path / "ca")
    a_minute_ago = WallClock(utc_now() - timedelta(minutes=1))
    earlier = LocalCa.open(tmp_path / "ca", a_minute_ago)
    client = End(ca.issue(CLIENT), tmp_path, is_server=False)
    server = End(earlier.issue(SERVER, timedelta(seconds=1)), tmp_path, is_server=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        shake(client, server)
