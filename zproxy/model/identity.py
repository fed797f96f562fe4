"""SPIFFE identities in Istio's shape: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT."""

import re
from typing import Final, NamedTuple

SCHEME: Final = "spiffe://"
TRUST_DOMAIN: Final = "cluster.local"
"""Istio's, where nobody chose another."""
_LONGEST: Final = 2048
"""Bytes, SPIFFE-ID 2.3."""
_SEGMENT: Final = r"(?!\.\.?/|\.\.?\Z)[A-Za-z0-9._-]+"
_SHAPE: Final = re.compile(rf"{SCHEME}([a-z0-9._-]{{1,255}})/ns/({_SEGMENT})/sa/({_SEGMENT})")


def trust_domain_of(text: str) -> str:
    """Return the trust domain that somebody wrote; raise ValueError where it can be none."""
    try:
        return SpiffeId.parse(f"{SCHEME}{text}/ns/a/sa/a").trust_domain
    except ValueError:
        raise ValueError(f"{text[:128]!r} is not a trust domain: lower-case letters, digits, . _ -") from None


class SpiffeId(NamedTuple):
    """Who a workload is, as its certificate's URI SAN says."""

    trust_domain: str
    namespace: str
    service_account: str

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Parse exactly `spiffe://TD/ns/NS/sa/SA` in the characters that SPIFFE-ID 2.1 and 2.2 allow.

        So an identity needs no quoting in a log line or a header. Raise ValueError otherwise.
        """
        shape = _SHAPE.fullmatch(text) if len(text) <= _LONGEST else None
        if shape is None:
            raise ValueError(f"{text[:128]!r} is not spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")
        return cls(shape[1], shape[2], shape[3])

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"
