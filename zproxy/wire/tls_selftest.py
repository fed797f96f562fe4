"""A real handshake and transfer in memory, before an engine is trusted with tunnels."""

import datetime

from zproxy.model.credentials import Credentials
from zproxy.wire.tls import TlsEngine, TlsSession

_URI = "spiffe://self.test/ns/self/sa/test"
_SIZE = 200_000


def prove(engine: TlsEngine) -> None:
    """Join a client and a server of `engine` in memory; raise AssertionError when unfit."""
    credentials = _self_signed()
    client, server = engine.client(credentials).session(), engine.server(credentials).session()
    _shake(client, server)
    for here, there in ((client, server), (server, client)):
        if here.peer_uris() != (_URI,):
            raise AssertionError("the peer's names were not read back")
        _transfer(here, there)


def _shake(client: TlsSession, server: TlsSession) -> None:
    done = {id(client): False, id(server): False}
    for _ in range(4):
        for here, there in ((client, server), (server, client)):
            done[id(here)] = done[id(here)] or here.handshake()
            there.feed(memoryview(bytes(here.output())))
    if not all(done.values()):
        raise AssertionError("the handshake did not finish")


def _transfer(here: TlsSession, there: TlsSession) -> None:
    sent, got = bytes(range(256)) * (_SIZE // 256), bytearray()
    buffer = memoryview(bytearray(1 << 16))
    here.write(sent)
    there.feed(memoryview(bytes(here.output())))
    while count := there.read_into(buffer):
        got += buffer[:count]
    if got != sent:
        raise AssertionError("bytes changed on the way")


def _self_signed() -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key())
    certificate = (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URI)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Credentials(chain, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), chain)
