"""TLS 1.3 in memory: what an engine offers, and which of the two engines this process uses.

Both sides present a certificate and verify the other's chain to `Credentials.roots`; ALPN h2 is required;
nothing is resumed. Host names are NEVER checked: in a mesh a peer is who its SPIFFE URI says, and the caller
compares `TlsSession.peer_uris()` with what it expects before it sends a byte.
"""

from typing import Protocol

from zproxy.model.credentials import Credentials

ALPN = "h2"


class TlsSession(Protocol):
    """One end of one TLS connection, driven by whoever owns the socket.

    After a TlsFailed the session is dead, but `output()` may still hold the alert that tells the peer why.
    """

    eof: bool
    """The peer sent close_notify. A socket that ends without it was cut."""
    alpn: str | None
    """Agreed protocol, from the end of the handshake on."""

    def handshake(self) -> bool:
        """Go one step; True once done. TlsFailed says why in operators' words.

        A client is done before the server has judged its certificate: a refusal surfaces as TlsFailed from
        `read_into`.
        """

    def feed(self, data: memoryview) -> None:
        """Take ciphertext, which may be referenced until `handshake` returned False or `read_into` 0."""

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt records back to back into `buffer`; 0 means nothing more before the next `feed`."""

    def write(self, data: memoryview | bytes) -> None:
        """Encrypt all of `data`; `output` has the records."""

    def output(self) -> bytes | memoryview:
        """Return ciphertext to be sent now, maybe none; valid until the engine's next call."""

    def peer_uris(self) -> tuple[str, ...]:
        """URI names of the verified leaf; empty when it has none."""

    def cipher(self) -> str:
        """Version and cipher suite as a person reads them: `TLSv1.3 TLS_AES_256_GCM_SHA384`."""

    def shutdown(self) -> None:
        """Queue close_notify; nothing is written afterwards."""

    def close(self) -> None:
        """Let go of what was fed and not read; nothing is called afterwards."""


class TlsContext(Protocol):
    """Credentials made ready for one role. Rotation makes a new context; sessions keep theirs."""

    def session(self) -> TlsSession:
        """Return a fresh session; a client's first flight is queued by its first `handshake` call."""


class TlsEngine(Protocol):
    """A TLS library. An engine and all its sessions belong to one thread."""

    name: str
    """For people and logs, with the library's version."""

    def server(self, credentials: Credentials) -> TlsContext:
        """Return a context that accepts; IdentityError when the credentials cannot be used."""

    def client(self, credentials: Credentials) -> TlsContext:
        """Return a context that dials; IdentityError when the credentials cannot be used."""


def choose_engine() -> TlsEngine:
    """Return OpenSSL through cryptography's binding if it proves itself, else the standard library's ssl.

    The binding halves the cost of a byte where the CPU has VAES, but it is no public interface: each process
    tries it on a real handshake first, and `name` says what came of it.
    """
    from zproxy.wire import tls_selftest, tls_stdlib

    try:
        from zproxy.wire import tls_openssl

        engine = tls_openssl.OpensslEngine()
        tls_selftest.prove(engine)
    except Exception as error:  # whatever a foreign interface does wrong, the fallback works
        return tls_stdlib.StdlibEngine(fallback_because=f"{type(error).__name__}: {error}")
    return engine
