"""The TLS engine over the standard library's ssl.MemoryBIO: the fallback that works with every OpenSSL."""

import ssl

from zproxy.errors import IdentityError, TlsFailed
from zproxy.model.credentials import Credentials
from zproxy.wire import tls_failures
from zproxy.wire.certificates import pem_file, uri_names
from zproxy.wire.tls import ALPN


class StdlibEngine:
    """Makes contexts of the interpreter's own OpenSSL."""

    def __init__(self, fallback_because: str = "") -> None:
        because = f" (the faster engine failed its test: {fallback_because})" if fallback_because else ""
        self.name = f"{ssl.OPENSSL_VERSION}, standard library{because}"

    def server(self, credentials: Credentials) -> "StdlibContext":
        """See TlsEngine."""
        return StdlibContext(credentials, is_server=True)

    def client(self, credentials: Credentials) -> "StdlibContext":
        """See TlsEngine."""
        return StdlibContext(credentials, is_server=False)


class StdlibContext:
    """An ssl.SSLContext for one role."""

    def __init__(self, credentials: Credentials, *, is_server: bool) -> None:
        self._is_server = is_server
        self._context = _configured(is_server)
        _load(self._context, credentials)

    def session(self) -> "StdlibSession":
        """See TlsContext."""
        return StdlibSession(self._context, is_server=self._is_server)


class StdlibSession:
    """An ssl.SSLObject between two memory BIOs; see TlsSession."""

    __slots__ = ("_failure", "_incoming", "_outgoing", "_tls", "alpn", "eof")

    def __init__(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        self._failure: TlsFailed | None = None
        self.eof = False
        self.alpn: str | None = None

    def handshake(self) -> bool:
        """See TlsSession."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _explained(error) from error
        self.alpn = self._tls.selected_alpn_protocol()
        if self.alpn != ALPN:
            raise tls_failures.failed(tls_failures.NO_ALPN)
        return True

    def feed(self, data: memoryview) -> None:
        """See TlsSession; this engine copies, so `data` is free again at once."""
        self._incoming.write(data)

    def read_into(self, buffer: memoryview) -> int:
        """See TlsSession."""
        if self._failure is not None:
            raise self._failure
        got, size = 0, len(buffer)
        tls, incoming = self._tls, self._incoming
        try:
            # Asking first spares the exception that an empty read costs.
            while got < size and (incoming.pending or tls.pending()):
                count = tls.read(size - got, buffer[got:])
                if not count:
                    self.eof = True
                    break
                got += count  # type: ignore[operator]  # an int, because a buffer was given
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.eof = True
        except ssl.SSLError as error:
            return self._fail(_explained(error), got)
        return got

    def write(self, data: memoryview | bytes) -> None:
        """See TlsSession."""
        view = memoryview(data)
        at, size = 0, len(view)
        try:
            while at < size:
                at += self._tls.write(view[at:])
        except ssl.SSLError as error:
            raise _explained(error) from error

    def output(self) -> bytes:
        """See TlsSession."""
        return self._outgoing.read()

    def peer_uris(self) -> tuple[str, ...]:
        """See TlsSession."""
        leaf = self._tls.getpeercert(binary_form=True)
        return uri_names(leaf) if leaf else ()

    def cipher(self) -> str:
        """See TlsSession."""
        chosen = self._tls.cipher()
        return f"{self._tls.version()} {chosen[0]}" if chosen else "none"

    def shutdown(self) -> None:
        """See TlsSession."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # close_notify is queued and the peer's missing, or the handshake got not far enough for one.
            return

    def close(self) -> None:
        """See TlsSession; a MemoryBIO copies, so there is nothing to let go of."""

    def _fail(self, failure: TlsFailed, got: int) -> int:
        """Raise, but hand over first what was decrypted before the failure."""
        self._failure = failure
        if not got:
            raise failure
        return got


def _configured(is_server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    if is_server:
        context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    try:
        with pem_file(credentials.private_key + b"\n" + credentials.certificate_chain) as path:
            context.load_cert_chain(path, password=_no_password)
        context.load_verify_locations(cadata=credentials.roots.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(f"certificate, key or roots cannot be used for TLS: {error}") from error


def _no_password() -> bytes:
    """An encrypted key fails instead of asking on the terminal."""
    return b""


def _explained(error: ssl.SSLError) -> TlsFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        return tls_failures.refused_certificate(error.verify_code, error.verify_message)
    return tls_failures.broken(error.reason or "")
