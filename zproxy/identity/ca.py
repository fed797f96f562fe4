"""The embedded CA: issues SPIFFE certificates from a root in a directory of this machine."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from zproxy.errors import IdentityError
from zproxy.identity.certificate import Certificate, Clock, Root, utc_now
from zproxy.identity.profile import LeafProfile
from zproxy.identity.rootstore import CLOCK_SKEW, RootKey, open_root
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId

LEAF_LIFETIME: Final = timedelta(hours=24)


class LocalCa:
    """Issues certificates for any identity, so it stays with the node; pods get a CertificateSource.

    The root key NEVER leaves it and is NEVER in `repr`.
    """

    def __init__(self, root: RootKey, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._profile = LeafProfile(root.certificate, root.key)
        self._root = Root(
            root.certificate.serial_number,
            root.certificate.not_valid_before_utc,
            root.certificate.not_valid_after_utc,
            root.certificate.public_bytes(Encoding.PEM),
        )

    @classmethod
    def open(cls, directory: Path, clock: Clock = utc_now) -> "LocalCa":
        """Return the CA whose root is in `directory`, making it the first time; raise IdentityError."""
        return cls(open_root(directory, clock()), clock)

    @property
    def root(self) -> Root:
        """What every issued certificate chains to, directly."""
        return self._root

    def issue(self, identity: SpiffeId, ttl: timedelta = LEAF_LIFETIME) -> Certificate:
        """Return a new certificate with a new key, valid for `ttl` but NEVER longer than the root.

        It begins CLOCK_SKEW in the past. Raise IdentityError for an identity that is not a SPIFFE ID and
        when the root has expired. Takes 60 us.
        """
        _refuse_malformed(identity)
        now = self._clock().replace(microsecond=0)
        begin, end = now - CLOCK_SKEW, min(now + ttl, self._root.not_after)
        if end <= now:
            raise IdentityError(
                f"the root of the CA expired at {self._root.not_after:%Y-%m-%d %H:%M} UTC; begin a new CA"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._profile.sign(key.public_key(), identity, begin, end)
        credentials = Credentials(
            certificate_chain=certificate.public_bytes(Encoding.PEM),
            private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            roots=self._root.pem,
        )
        return Certificate(identity, credentials, certificate.serial_number, begin, end)

    def __repr__(self) -> str:
        return f"LocalCa(root={self._root.serial:x})"


def _refuse_malformed(identity: SpiffeId) -> None:
    try:
        SpiffeId.parse(str(identity))
    except ValueError as error:
        raise IdentityError(f"no certificate can be issued: {error}") from error
