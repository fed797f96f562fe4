"""The CA's root on disk: made once, the same for all, and never trusted blindly."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

import zproxy
from zproxy.errors import IdentityError
from zproxy.identity.profile import LeafProfile
from zproxy.identity.rootstore import CERTIFICATE_FILE, CLOCK_SKEW, KEY_FILE, ROOT_LIFETIME, open_root
from zproxy.model.identity import SpiffeId

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A directory with a root that was made at NOW."""
    open_root(tmp_path / "ca", NOW)
    return tmp_path / "ca"


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def pkcs8(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, encryption: KeySerializationEncryption | None = None
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_the_first_opening_makes_a_root(tmp_path: Path) -> None:
    root = open_root(tmp_path / "var" / "ca", NOW)
    assert root.certificate.not_valid_before_utc == NOW - CLOCK_SKEW
    assert root.certificate.not_valid_after_utc == NOW + ROOT_LIFETIME
    root.certificate.verify_directly_issued_by(root.certificate)
    modes = {
        name: stat.S_IMODE((tmp_path / "var" / "ca" / name).stat().st_mode)
        for name in (".", KEY_FILE, CERTIFICATE_FILE)
    }
    assert modes == {".": 0o700, KEY_FILE: 0o600, CERTIFICATE_FILE: 0o644}
    assert (tmp_path / "var" / "ca" / KEY_FILE).read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_later_openings_find_the_same_root(ca: Path) -> None:
    first, second = open_root(ca, NOW), open_root(ca, NOW + timedelta(days=3000))
    assert first.certificate == second.certificate
    assert first.key.private_numbers() == second.key.private_numbers()


def test_daemons_that_start_together_agree_on_one_root(tmp_path: Path) -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from zproxy.identity.rootstore import open_root\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(open_root(Path(sys.argv[1]), datetime.now(UTC)).certificate.serial_number)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(zproxy.__file__).parents[1])}
    daemons = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "ca")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(6)
    ]
    for daemon in daemons:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
    for daemon in daemons:
        assert daemon.stdin is not None
        daemon.stdin.write("go\n")
        daemon.stdin.flush()
    serials = {daemon.communicate(timeout=30)[0] for daemon in daemons}
    assert [daemon.returncode for daemon in daemons] == [0] * 6
    assert len(serials) == 1
    assert {entry.name for entry in (tmp_path / "ca").iterdir()} == {KEY_FILE, CERTIFICATE_FILE, "lock"}


def test_an_interrupted_creation_is_finished_with_the_key_that_is_there(ca: Path) -> None:
    before = open_root(ca, NOW)
    (ca / CERTIFICATE_FILE).unlink()
    after = open_root(ca, NOW)
    assert after.key.private_numbers() == before.key.private_numbers()
    leaf = LeafProfile(before.certificate, before.key).sign(
        ec.generate_private_key(ec.SECP256R1()).public_key(), SpiffeId("td", "ns", "sa"), NOW, NOW
    )
    leaf.verify_directly_issued_by(after.certificate)


def refused(ca: Path, now: datetime = NOW) -> str:
    with pytest.raises(IdentityError) as caught:
        open_root(ca, now)
    message = str(caught.value)
    assert str(ca) in message
    assert "PRIVATE" not in message
    return message


def test_a_certificate_without_its_key_is_refused(ca: Path) -> None:
    (ca / KEY_FILE).unlink()
    assert "root-key.pem is gone, but root-cert.pem is there; put the key back" in refused(ca)
    assert not (ca / KEY_FILE).exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_a_key_that_others_can_read_is_refused(ca: Path, mode: int) -> None:
    (ca / KEY_FILE).chmod(mode)
    assert f"root-key.pem is open to other users (mode {mode:04o}" in refused(ca)


@pytest.mark.root
def test_a_key_of_another_user_is_refused(ca: Path) -> None:
    os.chown(ca / KEY_FILE, 65534, 65534)
    assert "uid 65534" in refused(ca)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_an_unreadable_key_is_refused(ca: Path, content: bytes) -> None:
    put(ca / KEY_FILE, content)
    assert "root-key.pem is not an unencrypted PEM private key; restore it from a copy" in refused(ca)


def test_an_encrypted_key_is_refused(ca: Path) -> None:
    put(ca / KEY_FILE, pkcs8(open_root(ca, NOW).key, BestAvailableEncryption(b"pass")))
    assert "root-key.pem is not an unencrypted PEM private key" in refused(ca)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["P-384", "RSA"],
)
def test_another_kind_of_key_is_refused(
    ca: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    put(ca / KEY_FILE, pkcs8(key))
    assert "root-key.pem is not a P-256 key" in refused(ca)


def test_a_certificate_of_another_key_is_refused(ca: Path) -> None:
    put(ca / KEY_FILE, pkcs8(ec.generate_private_key(ec.SECP256R1())))
    assert "root-cert.pem does not belong to root-key.pem beside it" in refused(ca)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_an_unreadable_certificate_is_refused(ca: Path, content: bytes) -> None:
    put(ca / CERTIFICATE_FILE, content)
    assert "root-cert.pem is not a PEM certificate; restore it from a copy" in refused(ca)


def test_a_certificate_that_is_no_ca_is_refused(ca: Path) -> None:
    root = open_root(ca, NOW)
    leaf = LeafProfile(root.certificate, root.key).sign(
        root.key.public_key(), SpiffeId("td", "ns", "sa"), NOW, NOW + timedelta(days=1)
    )
    put(ca / CERTIFICATE_FILE, leaf.public_bytes(Encoding.PEM))
    assert "root-cert.pem is not a self-signed CA certificate" in refused(ca)


def test_a_self_signed_certificate_that_is_no_ca_is_refused(ca: Path) -> None:
    root = open_root(ca, NOW)
    name = root.certificate.subject
    impostor = x509.CertificateBuilder(name, name, root.key.public_key(), 1, NOW, NOW + timedelta(days=1))
    put(ca / CERTIFICATE_FILE, impostor.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert "root-cert.pem is not a self-signed CA certificate" in refused(ca)


def test_an_expired_root_is_refused(ca: Path) -> None:
    open_root(ca, NOW + ROOT_LIFETIME - timedelta(seconds=1))
    message = refused(ca, NOW + ROOT_LIFETIME)
    assert f"root-cert.pem expired at {NOW + ROOT_LIFETIME:%Y-%m-%d %H:%M} UTC; remove it" in message


def test_a_root_from_the_future_means_a_wrong_clock(ca: Path) -> None:
    assert "begins at 2030-01-01 11:58 UTC; set the clock of this machine" in refused(
        ca, NOW - timedelta(days=1)
    )


def test_the_directory_may_be_read_by_others_but_not_written(ca: Path) -> None:
    ca.chmod(0o755)
    open_root(ca, NOW)
    ca.chmod(0o775)
    assert "other users could put their own root into the CA directory" in refused(ca)
