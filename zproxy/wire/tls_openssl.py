"""The TLS engine over the OpenSSL inside cryptography: pyOpenSSL sets contexts up, the binding moves records.

Per feed the receive buffer itself becomes the read BIO, SSL_read decrypts into the caller's buffer, SSL_write
encrypts 64 KiB at a time so that the write BIO stays in the L2 cache, and waiting for more is a return value,
never an exception. The binding is no public interface; `tls.choose_engine` tries it before use.

A memoryview that is still exported to C when the cycle collector clears it crashes CPython (its mbuf is
dropped, then dereferenced at release; seen on 3.11). So an export NEVER outlives the call that made it. The
read BIO keeps the bare address: `_fed` holds the memory behind it, by an ordinary reference.
"""

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from zproxy.errors import IdentityError, TlsFailed
from zproxy.model.credentials import Credentials
from zproxy.wire import tls_failures
from zproxy.wire.certificates import pem_file, uri_names
from zproxy.wire.tls import ALPN

ffi: Any = Binding.ffi
lib: Any = Binding().lib

PIECE = 64 << 10
"""Plaintext per SSL_write."""
SMALL = 4 << 10
"""Ciphertext that is copied into the read BIO."""

_H2 = ffi.new("unsigned char[]", ALPN.encode())
_WIRE_FORMAT = bytes((len(ALPN),)) + ALPN.encode()


@ffi.callback(
    "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"
)  # type: ignore[untyped-decorator]  # cffi has no types
def _select_h2(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _argument: Any) -> int:
    """Accept h2 alone; otherwise the client gets the alert no_application_protocol (RFC 7301 3.2)."""
    rest = bytes(ffi.buffer(offered, size))
    while rest:
        if rest.startswith(_WIRE_FORMAT):
            out[0], out_size[0] = _H2, len(ALPN)
            return int(lib.SSL_TLSEXT_ERR_OK)
        rest = rest[1 + rest[0] :]
    return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)


class OpensslEngine:
    """Makes contexts that share one ciphertext buffer."""

    def __init__(self) -> None:
        self.name = f"{_text(lib.OpenSSL_version(lib.OPENSSL_VERSION))}, cryptography's binding"
        self._outbox = _Outbox()

    def server(self, credentials: Credentials) -> "OpensslContext":
        """See TlsEngine."""
        return OpensslContext(self._outbox, credentials, is_server=True)

    def client(self, credentials: Credentials) -> "OpensslContext":
        """See TlsEngine."""
        return OpensslContext(self._outbox, credentials, is_server=False)


class OpensslContext:
    """An SSL_CTX for one role."""

    def __init__(self, outbox: "_Outbox", credentials: Credentials, *, is_server: bool) -> None:
        self._outbox = outbox
        self._is_server = is_server
        try:
            self._context: Any = _configured(is_server)
            _load(self._context, credentials)
            lib.ERR_clear_error()
        except (SSL.Error, TypeError, ValueError, UnsupportedAlgorithm) as error:
            because = _reasons(error)
            raise IdentityError(f"certificate, key or roots cannot be used for TLS: {because}") from error

    def session(self) -> "OpensslSession":
        """See TlsContext."""
        ssl = ffi.gc(lib.SSL_new(self._context._context), lib.SSL_free)
        (lib.SSL_set_accept_state if self._is_server else lib.SSL_set_connect_state)(ssl)
        return OpensslSession(ssl, self._outbox)


class _Outbox:
    """Ciphertext on its way out of any session: one buffer per engine, so that an idle tunnel holds none.

    ALWAYS belongs to the session that wrote last. A session that takes it over makes the former owner keep
    its own copy of what nobody has fetched yet.
    """

    __slots__ = ("data", "owner", "used", "view")

    def __init__(self) -> None:
        self.owner: OpensslSession | None = None
        self.used = 0
        self.view = memoryview(b"")
        self._resize(5 * PIECE)

    def drain(self, session: "OpensslSession", bio: Any) -> None:
        """Append what the session's write BIO holds."""
        owner = self.owner
        if owner is not session:
            if owner is not None:
                owner.keep(self.take(owner))
            self.owner = session
        while True:
            used, size = self.used, len(self.view)
            count = lib.BIO_read(bio, self.data + used, size - used)
            if count > 0:
                self.used = used + count
            if used + count < size:  # an empty BIO says -1
                return
            self._resize(2 * size)

    def take(self, session: "OpensslSession") -> memoryview:
        """Return what the session put here, nothing when the buffer is another's."""
        if self.owner is not session:
            return self.view[:0]
        taken = self.view[: self.used]
        self.owner, self.used = None, 0
        return taken

    def _resize(self, size: int) -> None:
        data = ffi.new("char[]", size)
        view = memoryview(ffi.buffer(data)).cast("B")
        if self.used:
            view[: self.used] = self.view[: self.used]
        self.data, self.view = data, view


class OpensslSession:
    """An SSL between two memory BIOs; see TlsSession."""

    __slots__ = (
        "_copies", "_failure", "_fed", "_kept", "_outbox", "_pointer", "_read_bio", "_ssl", "_write_bio",
        "alpn", "eof",
    )  # fmt: skip

    def __init__(self, ssl: Any, outbox: _Outbox) -> None:
        self._ssl = ssl
        self._outbox = outbox
        self._read_bio = lib.BIO_new(lib.BIO_s_mem())
        self._write_bio = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(ssl, self._read_bio, self._write_bio)  # the SSL owns both from here on
        self._pointer = ffi.new("char **")
        self._copies = True
        """Whether the read BIO has memory of its own, which it copies into."""
        self._fed: memoryview | None = None
        """What was fed last, and is the memory under a read BIO that does not copy; None once all is read."""
        self._kept = b""
        self._failure = ""
        """Why reading ended; the sentence and not the exception, whose traceback would hold this session."""
        self.eof = False
        self.alpn: str | None = None

    def handshake(self) -> bool:
        """See TlsSession."""
        lib.ERR_clear_error()
        result = lib.SSL_do_handshake(self._ssl)
        if result == 1:
            self._check_alpn()
            return True
        if lib.SSL_get_error(self._ssl, result) == lib.SSL_ERROR_WANT_READ:
            self._fed = None
            return False
        self._fed = None
        raise self._why()

    def feed(self, data: memoryview) -> None:
        """See TlsSession."""
        if len(data) <= SMALL:
            self._copy(data)
            return
        if self._fed is not None:
            data = memoryview(self._unread() + bytes(data))
        source = ffi.from_buffer(data)
        self._read_bio = lib.BIO_new_mem_buf(source, len(data))
        ffi.release(source)
        self._fed, self._copies = data, False
        lib.BIO_set_mem_eof_return(self._read_bio, -1)
        # With the write BIO unchanged, SSL_set_bio takes the new read BIO and frees the former one.
        lib.SSL_set_bio(self._ssl, self._read_bio, self._write_bio)

    def _copy(self, data: memoryview) -> None:
        """Feed a read of a few records: to copy it costs one call, to put it under a BIO five."""
        if not self._copies:
            unread = self._unread() if self._fed is not None else b""
            self._read_bio = lib.BIO_new(lib.BIO_s_mem())
            self._copies = True
            lib.SSL_set_bio(self._ssl, self._read_bio, self._write_bio)
            if unread:
                lib.BIO_write(self._read_bio, unread, len(unread))
        lib.BIO_write(self._read_bio, bytes(data), len(data))
        self._fed = data

    def read_into(self, buffer: memoryview) -> int:
        """See TlsSession."""
        if self._failure:
            raise TlsFailed(self._failure)
        if self._fed is None:
            return 0
        ssl, read = self._ssl, lib.SSL_read
        got: int = 0
        size = len(buffer)
        target = ffi.from_buffer(buffer)
        while got < size:
            count = read(ssl, target + got, size - got)
            if count <= 0:
                ffi.release(target)
                return self._stopped(count, got)
            got += count
            if self._copies and lib.BIO_get_mem_data(self._read_bio, self._pointer) <= 0:
                # A short read ends with its record, so nothing is left inside: spare the one that says so.
                if got < size:
                    self._fed = None
                break
        return got

    def write(self, data: memoryview | bytes) -> None:
        """See TlsSession."""
        ssl, size = self._ssl, len(data)
        if size <= SMALL:
            if lib.SSL_write(ssl, bytes(data), size) != size:
                raise self._why()
            return
        source, at = ffi.from_buffer(data), 0
        while at < size:
            if at:
                self._outbox.drain(self, self._write_bio)
            piece = min(size - at, PIECE)
            if lib.SSL_write(ssl, source + at, piece) != piece:
                ffi.release(source)
                raise self._why()
            at += piece

    def output(self) -> bytes | memoryview:
        """See TlsSession."""
        self._outbox.drain(self, self._write_bio)
        taken = self._outbox.take(self)
        if self._kept:
            kept, self._kept = self._kept, b""
            return kept + taken
        return taken

    def keep(self, ciphertext: memoryview) -> None:
        """Hold what `output` will return; the outbox goes to another session."""
        self._kept += ciphertext

    def peer_uris(self) -> tuple[str, ...]:
        """See TlsSession."""
        certificate = lib.SSL_get_peer_certificate(self._ssl)
        if certificate == ffi.NULL:
            return ()
        bio = ffi.gc(lib.BIO_new(lib.BIO_s_mem()), lib.BIO_free)
        lib.i2d_X509_bio(bio, certificate)
        lib.X509_free(certificate)
        size = lib.BIO_get_mem_data(bio, self._pointer)
        return uri_names(bytes(ffi.buffer(self._pointer[0], size)))

    def cipher(self) -> str:
        """See TlsSession."""
        suite = lib.SSL_get_current_cipher(self._ssl)
        if suite == ffi.NULL:
            return "none"
        return f"{_text(lib.SSL_get_version(self._ssl))} {_text(lib.SSL_CIPHER_get_name(suite))}"

    def shutdown(self) -> None:
        """See TlsSession."""
        # Fails only before the handshake is done, when there is nothing to close.
        lib.SSL_shutdown(self._ssl)
        lib.ERR_clear_error()

    def close(self) -> None:
        """See TlsSession."""
        self._fed = None

    def _check_alpn(self) -> None:
        name = ffi.new("unsigned char **")
        size = ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(self._ssl, name, size)
        self.alpn = bytes(ffi.buffer(name[0], size[0])).decode() if size[0] else None
        if self.alpn != ALPN:
            raise tls_failures.failed(tls_failures.NO_ALPN)

    def _unread(self) -> bytes:
        size = lib.BIO_get_mem_data(self._read_bio, self._pointer)
        return bytes(ffi.buffer(self._pointer[0], size)) if size > 0 else b""

    def _stopped(self, result: int, got: int) -> int:
        """Say why SSL_read gave nothing; a failure waits until what came before it has been handed over."""
        self._fed = None
        if lib.SSL_want_read(self._ssl):
            return got
        if lib.SSL_get_error(self._ssl, result) == lib.SSL_ERROR_ZERO_RETURN:
            self.eof = True
        else:
            self._failure = str(self._why())
            if not got:
                raise TlsFailed(self._failure)
        return got

    def _why(self) -> TlsFailed:
        """Turn the latest error into a sentence; SSL_get_error wants the thread's queue empty afterwards."""
        code = 0
        while entry := lib.ERR_get_error():
            code = entry
        reason = _text(lib.ERR_reason_error_string(code))
        verdict = lib.SSL_get_verify_result(self._ssl)
        if reason == "certificate verify failed" and verdict != lib.X509_V_OK:
            text = _text(lib.X509_verify_cert_error_string(verdict))
            return tls_failures.refused_certificate(verdict, text)
        return tls_failures.broken(reason)


def _configured(is_server: bool) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD if is_server else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    raw = context._context
    lib.SSL_CTX_clear_mode(raw, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
    lib.SSL_CTX_set_mode(raw, lib.SSL_MODE_RELEASE_BUFFERS)  # 27 kB less for an idle session
    if is_server:
        lib.SSL_CTX_set_alpn_select_cb(raw, _select_h2, ffi.NULL)
    else:
        context.set_alpn_protos([ALPN.encode()])
    return context


def _load(context: SSL.Context, credentials: Credentials) -> None:
    with pem_file(credentials.certificate_chain) as path:
        context.use_certificate_chain_file(path)
    # Loading it from a path would ask for a passphrase on the terminal, should it be encrypted.
    key: Any = serialization.load_pem_private_key(credentials.private_key, password=None)
    context.use_privatekey(key)
    with pem_file(credentials.roots) as path:
        context.load_verify_locations(path)


def _reasons(error: Exception) -> str:
    if not isinstance(error, SSL.Error):
        return str(error)
    entries = error.args[0] if error.args else ()
    return "; ".join(entry[2] for entry in entries if entry[2]) or "no reason given"


def _text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode()) if pointer else ""
