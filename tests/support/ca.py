"""A SPIFFE test CA: whatever certificate a test needs, in a millisecond."""

import datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zproxy.model.credentials import Credentials

CLIENT = "spiffe://cluster.local/ns/demo/sa/client"
SERVER = "spiffe://cluster.local/ns/demo/sa/server"

_DAY = datetime.timedelta(days=1)


def spiffe(namespace: str, service_account: str, trust_domain: str = "cluster.local") -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


class SpiffeCa:
    """A self-signed root. Two CAs NEVER trust each other, whatever their names.

    `credentials(uri)` is good; `credentials()` has no SAN at all; `expired` and `not_yet_valid` say what they
    give. Another identity is another URI, another CA another SpiffeCa.
    """

    def __init__(self, name: str = "zpt root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            _builder(self._name, self._name, self._key, now - _DAY, now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def roots(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def credentials(
        self,
        *uris: str,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
        roots: bytes | None = None,
    ) -> Credentials:
        """Issue a leaf that names `uris`, valid for a day and trusting this CA unless told otherwise."""
        now = datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name([]), self._name, key, not_before or now - _DAY, not_after or now + _DAY)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=False)
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        leaf = builder.sign(self._key, hashes.SHA256())
        return Credentials(
            leaf.public_bytes(serialization.Encoding.PEM), _pkcs8(key), self.roots if roots is None else roots
        )

    def expired(self, *uris: str) -> Credentials:
        now = datetime.datetime.now(datetime.UTC)
        return self.credentials(*uris, not_before=now - 2 * _DAY, not_after=now - _DAY)

    def not_yet_valid(self, *uris: str) -> Credentials:
        now = datetime.datetime.now(datetime.UTC)
        return self.credentials(*uris, not_before=now + _DAY, not_after=now + 2 * _DAY)


@cache
def shared_ca() -> SpiffeCa:
    """The CA of tests that only need two peers who trust each other."""
    return SpiffeCa()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
