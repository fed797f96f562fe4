"""The embedded CA's root: made once, shared by every daemon that uses the directory.

    root-key.pem    0600  PKCS #8, P-256
    root-cert.pem   0644  self-signed, 10 years
    lock            0600  held while the two are read or made

The key appears before the certificate: a key alone is an interrupted creation and gets its certificate,
a certificate alone has lost its key and is refused.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from zproxy.errors import IdentityError
from zproxy.identity.directory import CaDirectory
from zproxy.identity.profile import root_certificate

KEY_FILE: Final = "root-key.pem"
CERTIFICATE_FILE: Final = "root-cert.pem"
ROOT_LIFETIME: Final = timedelta(days=3652)
CLOCK_SKEW: Final = timedelta(minutes=2)
"""How far a peer's clock may be behind ours: validity begins this much in the past."""


class RootKey(NamedTuple):
    """The root certificate and the key that signs with it. NEVER leaves the CA."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def open_root(directory: Path, now: datetime) -> RootKey:
    """Return the root in `directory`, making directory and root when there are none; raise IdentityError.

    Blocks: a few milliseconds, more only while another process is at it.
    """
    with CaDirectory.locked(directory) as files:
        key_pem = files.read(KEY_FILE, is_secret=True)
        certificate_pem = files.read(CERTIFICATE_FILE)
        if key_pem is None and certificate_pem is not None:
            raise IdentityError(
                f"{directory / KEY_FILE} is gone, but {CERTIFICATE_FILE} is there; "
                "put the key back, or remove the certificate to begin a new CA"
            )
        key = _new_key(files) if key_pem is None else _parse_key(directory / KEY_FILE, key_pem)
        if certificate_pem is None:
            return RootKey(key, _new_certificate(files, key, now))
    path = directory / CERTIFICATE_FILE
    certificate = _parse_certificate(path, certificate_pem)
    _check_pair(path, key, certificate)
    _check_dates(path, certificate, now)
    return RootKey(key, certificate)


def _new_key(files: CaDirectory) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    files.write(KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def _new_certificate(files: CaDirectory, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    begin = now.replace(microsecond=0)
    certificate = root_certificate(key, begin - CLOCK_SKEW, begin + ROOT_LIFETIME)
    files.write(CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM), 0o644)
    return certificate


def _parse_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise IdentityError(
            f"{path} is not an unencrypted PEM private key; restore it from a copy"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(f"{path} is not a P-256 key; the embedded CA uses no other kind")
    return key


def _parse_certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"{path} is not a PEM certificate; restore it from a copy") from error


def _check_pair(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    if certificate.public_key() != key.public_key():
        raise IdentityError(
            f"{path} does not belong to {KEY_FILE} beside it; restore the two that belong together"
        )
    try:
        certificate.verify_directly_issued_by(certificate)
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        is_ca = False
    if not is_ca:
        raise IdentityError(
            f"{path} is not a self-signed CA certificate; restore the one made with {KEY_FILE}"
        )


def _check_dates(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise IdentityError(
            f"the root certificate {path} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            f"remove it and {KEY_FILE} to begin a new CA, on every node that shares it"
        )
    if now < certificate.not_valid_before_utc:
        raise IdentityError(
            f"the root certificate {path} begins at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "set the clock of this machine"
        )
