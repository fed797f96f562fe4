"""What the embedded CA's certificates look like.

Leaves follow the SPIFFE X.509-SVID standard and Istio's habit: P-256, ECDSA with SHA-256, empty subject,
the identity as the one critical URI SAN, for clients and servers alike.
"""

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zproxy.model.identity import SpiffeId


def _key_usage(*, is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_root,
        key_cert_sign=is_root,
        crl_sign=is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# Built once: a leaf's constant parts would be a third of the cost of issuing it.
_NO_SUBJECT: Final = x509.Name([])
_LEAF_CONSTRAINTS: Final = x509.BasicConstraints(ca=False, path_length=None)
_LEAF_KEY_USAGE: Final = _key_usage(is_root=False)
_LEAF_PURPOSES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
_ROOT_CONSTRAINTS: Final = x509.BasicConstraints(ca=True, path_length=0)


def root_certificate(key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime) -> x509.Certificate:
    """Return a self-signed root that may issue leaves and nothing else."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # A name of its own for each root: a chain to another CA then fails as "unknown CA", not "bad signature".
    common_name = f"zproxy root {key_id.digest[:4].hex()}"
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "zproxy"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(_ROOT_CONSTRAINTS, critical=True)
        .add_extension(_key_usage(is_root=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, hashes.SHA256())
    )


class LeafProfile:
    """Signs leaves of one root; what all of them share is made once."""

    def __init__(self, root: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._issuer = root.subject
        self._authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        self._key = key

    def sign(
        self, key: ec.EllipticCurvePublicKey, identity: SpiffeId, begin: datetime, end: datetime
    ) -> x509.Certificate:
        """Return the certificate that binds `key` to `identity`."""
        uri = x509.UniformResourceIdentifier(str(identity))
        serial = x509.random_serial_number()
        return (
            x509.CertificateBuilder(self._issuer, _NO_SUBJECT, key, serial, begin, end)
            .add_extension(_LEAF_CONSTRAINTS, critical=True)
            .add_extension(_LEAF_KEY_USAGE, critical=True)
            .add_extension(_LEAF_PURPOSES, critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
            .add_extension(self._authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
