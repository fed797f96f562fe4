"""One conformance suite for every pair of TLS engines, and the choice between them."""

import contextlib
import ctypes
import gc
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ca import CLIENT, SERVER, SpiffeCa, shared_ca
from tests.unit.wire.tls_pair import Pair, flush, read_all, refused, shake
from zproxy.errors import IdentityError, TlsFailed
from zproxy.model.credentials import Credentials
from zproxy.wire import tls_openssl, tls_selftest
from zproxy.wire.certificates import pem_file
from zproxy.wire.tls import TlsEngine, TlsSession, choose_engine
from zproxy.wire.tls_openssl import OpensslEngine
from zproxy.wire.tls_stdlib import StdlibEngine

ENGINES = {"openssl": OpensslEngine, "stdlib": StdlibEngine}


@pytest.fixture(params=[(a, b) for a in ENGINES for b in ENGINES], ids="-".join)
def engines(request: pytest.FixtureRequest) -> tuple[TlsEngine, TlsEngine]:
    """The client's and the server's."""
    client, server = request.param
    return ENGINES[client](), ENGINES[server]()


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> TlsEngine:
    made: TlsEngine = ENGINES[request.param]()
    return made


@pytest.fixture
def pair(engines: tuple[TlsEngine, TlsEngine]) -> Pair:
    made = Pair(engines)
    shake(made.client, made.server)
    return made


def test_both_sides_agree_on_tls13_and_h2(pair: Pair) -> None:
    for session in (pair.client, pair.server):
        assert session.alpn == "h2"
        assert session.cipher().startswith("TLSv1.3 TLS_")
        assert not session.eof


def test_each_side_reads_the_other_uris(pair: Pair) -> None:
    assert pair.client.peer_uris() == (SERVER,)
    assert pair.server.peer_uris() == (CLIENT,)


def test_every_uri_is_read_in_order(engines: tuple[TlsEngine, TlsEngine]) -> None:
    pair = Pair(engines, client=shared_ca().credentials(CLIENT, SERVER))
    shake(pair.client, pair.server)
    assert pair.server.peer_uris() == (CLIENT, SERVER)


def test_a_certificate_without_san_has_no_uris(engines: tuple[TlsEngine, TlsEngine]) -> None:
    pair = Pair(engines, server=shared_ca().credentials())
    shake(pair.client, pair.server)
    assert pair.client.peer_uris() == ()


def test_handshake_survives_one_byte_at_a_time(engines: tuple[TlsEngine, TlsEngine]) -> None:
    pair = Pair(engines)
    shake(pair.client, pair.server, piece=1)
    pair.client.write(b"after")
    assert read_all(pair.client, pair.server) == b"after"


@pytest.mark.parametrize("client_writes", [True, False])
def test_a_mebibyte_arrives_whatever_the_splits(pair: Pair, client_writes: bool) -> None:
    here, there = (pair.client, pair.server) if client_writes else (pair.server, pair.client)
    sent = random.Random(1).randbytes(1 << 20)
    here.write(sent)
    ciphertext = flush(here)
    got, at, buffer = bytearray(), 0, memoryview(bytearray(50_001))
    rng = random.Random(2)
    while at < len(ciphertext):
        step = rng.choice((1, 5, 4096, 60_000))
        there.feed(memoryview(ciphertext)[at : at + step])
        at += step
        while count := there.read_into(buffer):
            got += buffer[:count]
    assert got == sent


def test_bytes_fed_before_the_last_ones_were_read_are_kept(pair: Pair) -> None:
    for number in range(10):
        pair.client.write(b"%d" % number)
        pair.server.feed(memoryview(flush(pair.client)))
    buffer = memoryview(bytearray(100))
    got = bytearray()
    while count := pair.server.read_into(buffer):
        got += buffer[:count]
    assert got == b"0123456789"


def test_plaintext_behind_the_handshake_is_read_without_another_feed(pair: Pair) -> None:
    fresh = Pair(pair.engines)
    client, server = fresh.client, fresh.server
    client.handshake()
    server.feed(memoryview(flush(client)))
    assert not server.handshake()
    client.feed(memoryview(flush(server)))
    assert client.handshake()
    client.write(b"early")
    server.feed(memoryview(flush(client)))
    assert server.handshake()
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: server.read_into(buffer)]) == b"early"


def test_output_of_one_session_survives_writes_of_another(engines: tuple[TlsEngine, TlsEngine]) -> None:
    first, second = Pair(engines), Pair(engines)
    for pair in (first, second):
        shake(pair.client, pair.server)
    big = bytes(200_000)
    first.client.write(big + b"1")
    second.client.write(big + b"2")
    first.client.write(b"1")
    assert read_all(second.client, second.server) == big + b"2"
    assert read_all(first.client, first.server) == big + b"11"


def test_close_notify_is_end_of_file(pair: Pair) -> None:
    pair.client.write(b"last")
    pair.client.shutdown()
    assert read_all(pair.client, pair.server) == b"last"
    assert pair.server.eof
    assert pair.server.read_into(memoryview(bytearray(10))) == 0


def test_a_truncated_record_is_neither_data_nor_end_of_file(pair: Pair) -> None:
    pair.client.write(b"never seen")
    pair.server.feed(memoryview(flush(pair.client)[:-1]))
    assert pair.server.read_into(memoryview(bytearray(100))) == 0
    assert not pair.server.eof


def test_an_altered_record_fails_after_the_good_ones(pair: Pair) -> None:
    pair.client.write(b"good")
    good = flush(pair.client)
    pair.client.write(b"bad")
    bad = bytearray(flush(pair.client))
    bad[-1] ^= 1
    pair.server.feed(memoryview(good + bytes(bad)))
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: pair.server.read_into(buffer)]) == b"good"
    with pytest.raises(TlsFailed, match="altered"):
        pair.server.read_into(buffer)
    assert flush(pair.server), "the alert that says why"


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 64, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff" * 6],
)
def test_what_is_not_tls_is_called_so(engine: TlsEngine, garbage: bytes) -> None:
    server = Pair((engine, engine)).server
    server.feed(memoryview(garbage))
    with pytest.raises(TlsFailed, match="does not speak TLS"):
        server.handshake()


def test_tls12_is_refused(engine: TlsEngine) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(into, out).do_handshake()
    server = Pair((engine, engine)).server
    server.feed(memoryview(out.read()))
    with pytest.raises(TlsFailed, match=r"does not speak TLS 1\.3"):
        server.handshake()


def test_nothing_is_resumed(engine: TlsEngine) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _lend(context, shared_ca().credentials(CLIENT))
    context.set_alpn_protocols(["h2"])
    server_context = engine.server(shared_ca().credentials(SERVER))
    session = None
    for _ in range(2):
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client, server = context.wrap_bio(into, out, session=session), server_context.session()
        _shake_foreign(client, into, out, server)
        assert not client.session_reused
        session = client.session


def test_the_standard_library_sends_no_tickets() -> None:
    pair = Pair((StdlibEngine(), StdlibEngine()))
    client, server = pair.client, pair.server
    client.handshake()
    server.feed(memoryview(flush(client)))
    server.handshake()
    client.feed(memoryview(flush(server)))
    client.handshake()
    server.feed(memoryview(flush(client)))
    assert server.handshake()
    assert flush(server) == b""


def _shake_foreign(client: ssl.SSLObject, into: ssl.MemoryBIO, out: ssl.MemoryBIO, peer: TlsSession) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    peer.feed(memoryview(out.read()))
    assert not peer.handshake()
    into.write(flush(peer))
    client.do_handshake()
    peer.feed(memoryview(out.read()))
    assert peer.handshake()
    peer.write(b"x")
    into.write(flush(peer))
    assert client.read(10) == b"x"


def _lend(context: ssl.SSLContext, credentials: Credentials) -> None:
    with pem_file(credentials.private_key + credentials.certificate_chain) as path:
        context.load_cert_chain(path)


BAD: dict[str, tuple[Callable[[], Credentials], str, str]] = {
    "expired": (lambda: shared_ca().expired(CLIENT), "certificate has expired", "it has expired"),
    "not yet valid": (lambda: shared_ca().not_yet_valid(CLIENT), "not valid yet", "not yet valid"),
    "other CA": (lambda: _stranger("zpt other"), "signed by an unknown CA", "does not know the CA"),
    "namesake CA": (
        lambda: _stranger("zpt root"),
        "signed by an unknown CA",
        "refused our certificate|decrypt error",
    ),
}


def _stranger(ca_name: str) -> Credentials:
    return SpiffeCa(ca_name).credentials(CLIENT, roots=shared_ca().roots)


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_client_certificate_is_refused_and_the_client_told(
    engines: tuple[TlsEngine, TlsEngine], case: str
) -> None:
    bad, ours, theirs = BAD[case]
    pair = Pair(engines, client=bad())
    with pytest.raises(TlsFailed, match=ours):
        refused(pair.client, pair.server)
    # The client had finished: TLS 1.3 lets it speak before it is judged.
    assert pair.client.alpn == "h2"
    pair.client.feed(memoryview(flush(pair.server)))
    with pytest.raises(TlsFailed, match=theirs):
        pair.client.read_into(memoryview(bytearray(100)))


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_server_certificate_is_refused_and_the_server_told(
    engines: tuple[TlsEngine, TlsEngine], case: str
) -> None:
    bad, ours, theirs = BAD[case]
    pair = Pair(engines, server=bad())
    with pytest.raises(TlsFailed, match=ours):
        refused(pair.server, pair.client)
    pair.server.feed(memoryview(flush(pair.client)))
    with pytest.raises(TlsFailed, match=theirs):
        pair.server.handshake()


@pytest.mark.parametrize(
    ("protocols", "message"), [(["http/1.1"], "h2"), ([], "HBONE port")], ids=["another", "none"]
)
def test_a_client_without_h2_is_refused(engine: TlsEngine, protocols: list[str], message: str) -> None:
    with pytest.raises(TlsFailed, match=message):
        _dial_by_hand(engine, protocols, shared_ca().credentials(CLIENT))


def test_the_fast_engine_tells_a_client_without_h2_why() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1", "h2c"])
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="any.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server = OpensslEngine().server(shared_ca().credentials(SERVER)).session()
    server.feed(memoryview(out.read()))
    with pytest.raises(TlsFailed, match="does not offer ALPN h2"):
        server.handshake()
    into.write(flush(server))
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        client.do_handshake()


def test_a_client_without_certificate_is_refused(engine: TlsEngine) -> None:
    with pytest.raises(TlsFailed, match="sent no certificate"):
        _dial_by_hand(engine, ["h2"], None)


def _dial_by_hand(engine: TlsEngine, protocols: list[str], credentials: Credentials | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if credentials is not None:
        _lend(context, credentials)
    if protocols:
        context.set_alpn_protocols(protocols)
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = context.wrap_bio(into, out), engine.server(shared_ca().credentials(SERVER)).session()
    for _ in range(3):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        server.feed(memoryview(out.read()))
        done = server.handshake()
        into.write(flush(server))
    assert not done, "the server accepted"


def test_a_server_without_h2_is_refused(engine: TlsEngine) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _lend(context, shared_ca().credentials(SERVER))
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = context.wrap_bio(into, out, server_side=True), Pair((engine, engine)).client
    client.handshake()
    into.write(flush(client))
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.feed(memoryview(out.read()))
    with pytest.raises(TlsFailed, match="did not agree on ALPN h2"):
        client.handshake()


GOOD = shared_ca().credentials(CLIENT)


@pytest.mark.parametrize(
    "credentials",
    [
        GOOD._replace(certificate_chain=b"garbage"),
        GOOD._replace(private_key=b""),
        GOOD._replace(private_key=shared_ca().credentials(CLIENT).private_key),
        GOOD._replace(roots=b""),
    ],
    ids=["chain", "no key", "key of another certificate", "no roots"],
)
def test_unusable_credentials_are_an_identity_error(engine: TlsEngine, credentials: Credentials) -> None:
    for make in (engine.client, engine.server):
        with pytest.raises(IdentityError, match="cannot be used for TLS"):
            make(credentials)


def test_an_encrypted_key_fails_instead_of_asking(engine: TlsEngine) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    key = pem.load_pem_private_key(GOOD.private_key, None)
    locked = key.private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(IdentityError):
        engine.client(GOOD._replace(private_key=locked))


def test_credentials_never_print_the_key() -> None:
    assert "PRIVATE" not in repr(GOOD)
    assert "PRIVATE" not in str(GOOD)


def test_no_key_file_is_left_open(engine: TlsEngine) -> None:
    before = sorted(_open_files())
    engine.server(GOOD)
    assert sorted(_open_files()) == before


def _open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            yield str(link.readlink())
        except FileNotFoundError:
            continue  # the directory's own descriptor


def test_memory_does_not_grow_with_sessions(engine: TlsEngine) -> None:
    pair = Pair((engine, engine))
    libc = ctypes.CDLL(None)

    def run(count: int) -> int:
        for _ in range(count):
            client, server = pair.contexts[0].session(), pair.contexts[1].session()
            shake(client, server)
            client.write(bytes(100_000))
            read_all(client, server)
            server.peer_uris()
        libc.malloc_trim(0)  # what earlier tests freed would hide a leak
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    sizes = [run(150) for _ in range(3)]
    growth = min(sizes[1] - sizes[0], sizes[2] - sizes[1])
    # A session is 40 kB, its peer's certificate 5 kB: the smallest of all leaks would be 750 kB.
    assert growth < 400_000


def test_the_fast_engine_is_chosen_when_it_works() -> None:
    assert "cryptography" in choose_engine().name


def test_an_engine_that_changes_bytes_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    read_into = tls_openssl.OpensslSession.read_into

    def broken(session: tls_openssl.OpensslSession, buffer: memoryview) -> int:
        count = read_into(session, buffer)
        buffer[0] ^= 1
        return count

    monkeypatch.setattr(tls_openssl.OpensslSession, "read_into", broken)
    engine = choose_engine()
    assert isinstance(engine, StdlibEngine)
    assert "bytes changed on the way" in engine.name


def test_a_binding_without_a_function_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tls_openssl.lib, "SSL_want_read")
    engine = choose_engine()
    assert "AttributeError" in engine.name


def test_the_self_test_passes_for_both(engine: TlsEngine) -> None:
    tls_selftest.prove(engine)


def test_sessions_that_failed_are_collected_without_harm(
    engines: tuple[TlsEngine, TlsEngine],
) -> None:
    """A memoryview exported to C crashes the interpreter when the cycle collector finds it first."""
    for _ in range(50):
        client = engines[0].client(shared_ca().expired(CLIENT)).session()
        server = engines[1].server(shared_ca().credentials(SERVER)).session()
        kept = []
        buffer = memoryview(bytearray(1 << 16))
        with contextlib.suppress(TlsFailed):
            for _step in range(4):
                client.handshake()
                server.feed(memoryview(bytearray(client.output()))[:])
                server.handshake()
                client.feed(memoryview(bytearray(server.output()))[:])
        try:
            client.handshake()
            client.read_into(buffer)
        except TlsFailed as error:
            kept.append(error)
        client.close()
        server.close()
        cycle = [client, server, kept, buffer]
        cycle.append(cycle)
        del cycle, client, server, kept, buffer
        gc.collect()


def test_what_was_fed_is_no_export_so_nobody_has_to_close(pair: Pair) -> None:
    pair.client.write(b"unread")
    memory = bytearray(flush(pair.client))
    view = memoryview(memory)
    pair.server.feed(view)
    view.release()  # BufferError if C still held it
