import pytest

from zproxy.wire import tls_failures


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know the CA"),
        ("tlsv1 alert unknown ca", "does not know the CA"),
        ("sslv3 alert certificate expired", "has expired"),
        ("tls alert certificate expired", "has expired"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "requires a certificate"),
        ("tlsv1 alert internal error", "sent the alert 'internal error'"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("some new reason", "some new reason"),
        ("", "no reason"),
    ],
)
def test_a_reason_is_explained_in_either_spelling(reason: str, words: str) -> None:
    assert words in str(tls_failures.broken(reason))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [(10, "has expired"), (9, "not valid yet"), (20, "unknown CA"), (23, "was refused (revoked)")],
)
def test_a_verdict_is_explained(verdict: int, words: str) -> None:
    assert words in str(tls_failures.refused_certificate(verdict, "revoked"))
