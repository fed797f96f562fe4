"""Certificates as values."""

from datetime import UTC, datetime

from zproxy.identity.certificate import Certificate, utc_now
from zproxy.model.credentials import Credentials
from zproxy.model.identity import SpiffeId


def test_the_key_is_not_in_repr() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    identity = SpiffeId("cluster.local", "demo", "client")
    certificate = Certificate(identity, Credentials(b"chain", b"SECRET", b"roots"), 7, now, now)
    assert "SECRET" not in repr(certificate)
    assert "client" in repr(certificate)


def test_the_clock_has_a_zone() -> None:
    assert utc_now().tzinfo is UTC
