"""Credentials: what one end of an mTLS connection needs to prove who it is and to check its peer."""

from typing import NamedTuple


class Credentials(NamedTuple):
    """Certificate chain, private key and trusted roots, all PEM.

    The private key is NEVER in `repr`. A NamedTuple hands out its fields to whoever unpacks it, so
    credentials go to a TLS engine and nowhere else.
    """

    certificate_chain: bytes
    """Leaf first, then intermediates; roots are not part of it."""
    private_key: bytes
    """PKCS #8, not encrypted."""
    roots: bytes
    """What a peer's chain must end in; may hold several."""

    def __repr__(self) -> str:
        return "Credentials(certificate_chain=..., private_key=<hidden>, roots=...)"
