"""Certificates as values, and what a certificate authority offers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId

Clock = Callable[[], datetime]
"""The time of day, with a zone: certificates are about calendar time, not about spans."""


def utc_now() -> datetime:
    """Return the time of day; the clock wherever no other is given."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of one identity with its key. The key is NEVER in `repr`."""

    identity: SpiffeId
    credentials: Credentials
    serial: int
    not_before: datetime
    not_after: datetime


class Root(NamedTuple):
    """A self-signed certificate at the end of every chain."""

    serial: int
    not_before: datetime
    not_after: datetime
    pem: bytes


class CertificateAuthority(Protocol):
    """Whoever issues certificates for the pods of this node."""

    @property
    def root(self) -> Root:
        """What the issued certificates chain to."""

    def issue(self, identity: SpiffeId, ttl: timedelta) -> Certificate:
        """Return a new certificate with a new key, valid from now for at most `ttl`; raise IdentityError."""
