"""One current certificate per identity of this node, and a view narrowed to one identity for each pod.

A certificate is renewed from the middle of its life on, by whoever asks for it or by `renew_due`. While
renewal fails, the old one is served until it expires, and the CA is asked again after 1, 2, 4 ... 150 s.
Pods ask from the threads of their workers: looking takes no lock, renewing one, so that each renewal is one.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from zproxy.errors import IdentityError
from zproxy.identity.ca import LEAF_LIFETIME
from zproxy.identity.certificate import Certificate, CertificateAuthority, Clock, utc_now
from zproxy.model.identity import SpiffeId

FIRST_RETRY: Final = timedelta(seconds=1)
LAST_RETRY: Final = timedelta(seconds=150)
"""ztunnel's values."""

_log = logging.getLogger("zproxy.identity")


class CertificateRow(NamedTuple):
    """One line of `zproxy certs`."""

    identity: str
    type: Literal["Leaf", "Root"]
    status: str
    """`Available`, `Initializing` or `Unavailable: why`, as ztunnel reports it."""
    is_valid: bool
    """Whether now lies between the two dates."""
    serial: str
    """Hexadecimal; empty when there is no certificate."""
    not_before: datetime | None
    not_after: datetime | None


class _Holding:
    """One identity's certificate and when to renew it. Knows how to issue for this identity only."""

    __slots__ = (
        "_certificate",
        "_clock",
        "_issue",
        "_lock",
        "_renew_at",
        "_retry_at",
        "_retry_in",
        "error",
        "identity",
        "sources",
    )

    def __init__(self, identity: SpiffeId, issue: Callable[[], Certificate], clock: Clock) -> None:
        self.identity = identity
        self.sources = 0
        """Open sources, counted under the manager's lock; the holding is forgotten with the last."""
        self.error = ""
        """Why the last attempt failed; empty after a success."""
        self._issue = issue
        self._clock = clock
        self._lock = threading.Lock()
        self._certificate: Certificate | None = None
        self._renew_at: datetime | None = None
        self._retry_at: datetime | None = None
        self._retry_in = FIRST_RETRY

    def current(self) -> Certificate:
        """Return a certificate that is valid now, renewed if that is due; raise IdentityError."""
        now = self._clock()
        if self._is_due(now):
            with self._lock:
                if self._is_due(now):  # nobody else has renewed it meanwhile
                    self._renew(now)
        certificate = self.valid(now)
        if certificate is None:
            raise IdentityError(f"{self.identity} has no valid certificate: {self.error}")
        return certificate

    def valid(self, now: datetime) -> Certificate | None:
        """Return the certificate if it is valid `now`."""
        certificate = self._certificate
        if certificate is None or not certificate.not_before <= now < certificate.not_after:
            return None
        return certificate

    @property
    def latest(self) -> Certificate | None:
        """The last certificate, valid or not."""
        return self._certificate

    def _is_due(self, now: datetime) -> bool:
        renew_at, retry_at = self._renew_at, self._retry_at  # read once: a renewal may change them
        if renew_at is not None and now < renew_at and self.valid(now) is not None:
            return False
        # The lower bound is for a clock that was set back: a wait NEVER becomes longer than LAST_RETRY.
        return retry_at is None or not retry_at - LAST_RETRY <= now < retry_at

    def _renew(self, now: datetime) -> None:
        try:
            certificate = self._issue()
        except IdentityError as error:
            self.error = str(error)
            self._retry_at = now + self._retry_in
            _log.warning(
                "no new certificate for %s, next attempt in %d s: %s",
                self.identity,
                self._retry_in.total_seconds(),
                error,
            )
            self._retry_in = min(self._retry_in * 2, LAST_RETRY)
            return
        self._certificate = certificate
        self._renew_at = now + (certificate.not_after - now) / 2
        self._retry_at, self._retry_in, self.error = None, FIRST_RETRY, ""


class CertificateSource:
    """A pod's only access to certificates: those of its own identity. Closed by the pod that got it."""

    __slots__ = ("_close", "_holding")

    def __init__(self, holding: _Holding, close: Callable[[], None]) -> None:
        self._holding: _Holding | None = holding
        self._close = close

    def current(self) -> Certificate:
        """Return a certificate that is valid now; the same object until it is renewed.

        Usually a comparison of dates (0.4 us), at most one issue. Raise IdentityError.
        """
        if self._holding is None:
            raise IdentityError("this certificate source was closed with its pod")
        return self._holding.current()

    def close(self) -> None:
        """Give the identity up; the last source of an identity makes the node forget its key. Idempotent."""
        if self._holding is not None:
            self._holding = None
            self._close()


class CertificateManager:
    """Keeps the certificates of every identity that runs on this node. Stays with the node."""

    def __init__(
        self, ca: CertificateAuthority, clock: Clock = utc_now, ttl: timedelta = LEAF_LIFETIME
    ) -> None:
        self._ca = ca
        self._clock = clock
        self._ttl = ttl
        self._lock = threading.Lock()
        self._holdings: dict[SpiffeId, _Holding] = {}
        """Changed under the lock: straws open and close on the threads of their workers."""

    def source(self, identity: SpiffeId) -> CertificateSource:
        """Return a source of certificates for `identity` and nothing else; the caller closes it.

        Sources of one identity share one certificate. Nothing is issued until it is asked for.
        """
        with self._lock:
            holding = self._holdings.get(identity)
            if holding is None:
                holding = _Holding(identity, lambda: self._ca.issue(identity, self._ttl), self._clock)
                self._holdings[identity] = holding
            holding.sources += 1
        return CertificateSource(holding, lambda: self._release(holding))

    def renew_due(self) -> None:
        """Renew what is due, for pods that were idle too; failures are logged and retried later."""
        for _, holding in self._held():
            try:
                holding.current()
            except IdentityError:
                continue  # logged, and shown by `certificates`

    def certificates(self) -> list[CertificateRow]:
        """Return a leaf and a root for each identity, sorted by identity."""
        now = self._clock()
        root = self._ca.root
        rows: list[CertificateRow] = []
        for identity, holding in self._held():
            rows.append(_leaf_row(holding, now))
            is_valid = root.not_before <= now < root.not_after
            rows.append(
                CertificateRow(
                    str(identity),
                    "Root",
                    "Available",
                    is_valid,
                    f"{root.serial:x}",
                    root.not_before,
                    root.not_after,
                )
            )
        return rows

    def _held(self) -> list[tuple[SpiffeId, _Holding]]:
        with self._lock:
            return sorted(self._holdings.items(), key=lambda item: item[0])

    def _release(self, holding: _Holding) -> None:
        with self._lock:
            holding.sources -= 1
            if holding.sources == 0:
                del self._holdings[holding.identity]


def _leaf_row(holding: _Holding, now: datetime) -> CertificateRow:
    name = str(holding.identity)
    certificate = holding.latest
    if certificate is None:
        status = f"Unavailable: {holding.error}" if holding.error else "Initializing"
        return CertificateRow(name, "Leaf", status, False, "", None, None)
    is_valid = holding.valid(now) is not None
    status = "Available" if is_valid else f"Unavailable: {holding.error or 'expired'}"
    return CertificateRow(
        name,
        "Leaf",
        status,
        is_valid,
        f"{certificate.serial:x}",
        certificate.not_before,
        certificate.not_after,
    )
