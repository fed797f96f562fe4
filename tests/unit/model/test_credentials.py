"""Credentials do not show their key."""

from zproxy.model.credentials import Credentials


def test_the_key_is_not_in_repr() -> None:
    credentials = Credentials(b"chain", b"SECRET", b"roots")
    assert "SECRET" not in repr(credentials)
    assert "SECRET" not in f"{credentials} {credentials!s} {[credentials]}"


def test_the_fields_are_there_for_a_tls_engine() -> None:
    chain, key, roots = Credentials(b"chain", b"key", b"roots")
    assert (chain, key, roots) == (b"chain", b"key", b"roots")
