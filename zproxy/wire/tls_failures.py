"""Why TLS failed, in operators' words: OpenSSL's reason texts and X.509 verdicts mapped to likely causes.

Both engines end in OpenSSL; the standard library spells the reasons in capitals. Versions differ in the
prefix of an alert's text (`sslv3 alert`, `tls alert`, `tlsv1 alert`): only what follows `alert` counts.
"""

from zproxy.errors import TlsFailed

UNKNOWN_CA = "is signed by an unknown CA; do both sides share a root?"

_VERDICTS = {
    2: UNKNOWN_CA,
    7: UNKNOWN_CA,
    9: "is not valid yet; compare the clocks of both nodes",
    10: "has expired",
    18: UNKNOWN_CA,
    19: UNKNOWN_CA,
    20: UNKNOWN_CA,
    21: UNKNOWN_CA,
    26: "may not be used for TLS in this role (extended key usage)",
    30: UNKNOWN_CA,
}
"""X509_V_ERR_* (OpenSSL x509_vfy.h). 7 and 30 also come from another CA that goes by the same name."""

_NOT_TLS = "the peer does not speak TLS on this port"
_ALTERED = "a record was altered on the way or belongs to another connection"
_REASONS = {
    "peer did not return a certificate": "the peer sent no certificate",
    "no application protocol": "the peer does not offer ALPN h2",
    "unsupported protocol": "the peer does not speak TLS 1.3",
    "wrong version number": _NOT_TLS,
    "http request": _NOT_TLS,
    "https proxy request": _NOT_TLS,
    "packet length too long": _NOT_TLS,
    "unexpected eof while reading": "the peer closed the connection in the middle of it",
    "bad record type": _ALTERED,
    "record layer failure": _ALTERED,
    "decryption failed or bad record mac": _ALTERED,
}

_REFUSED = "the peer refused our certificate: "
_ALERTS = {
    "unknown ca": f"{_REFUSED}it does not know the CA that signed it",
    "certificate expired": f"{_REFUSED}it has expired, or the peer's clock is wrong",
    "certificate revoked": f"{_REFUSED}it is revoked",
    "certificate unknown": f"{_REFUSED}it gave no cause",
    "bad certificate": f"{_REFUSED}it is malformed, or not yet valid",
    "unsupported certificate": f"{_REFUSED}it may not be used for TLS in this role",
    "access denied": f"{_REFUSED}its identity is not allowed",
    "certificate required": "the peer requires a certificate and got none",
    "protocol version": "the peer does not speak TLS 1.3",
    "no application protocol": "the peer does not speak ALPN h2",
    "handshake failure": "the peer found no common cipher suite or group",
    "insufficient security": "the peer found no common cipher suite or group",
}

NO_ALPN = "the peer did not agree on ALPN h2; is it an HBONE port?"


def failed(cause: str) -> TlsFailed:
    """Return the error for a cause that is already in operators' words."""
    return TlsFailed(f"TLS failed: {cause}")


def refused_certificate(verdict: int, text: str) -> TlsFailed:
    """Explain an X.509 verification result; `text` is OpenSSL's own, for verdicts that have no line here."""
    return failed(f"the peer's certificate {_VERDICTS.get(verdict, f'was refused ({text})')}")


def broken(reason: str) -> TlsFailed:
    """Explain a reason from OpenSSL's error queue, in either spelling."""
    words = reason.lower().replace("_", " ")
    _, alert, name = words.rpartition("alert ")
    if alert:
        return failed(_ALERTS.get(name, f"the peer sent the alert '{name}'"))
    return failed(_REASONS.get(words, words or "the library gave no reason"))
