"""Two TLS sessions joined in memory."""

from tests.support.ca import CLIENT, SERVER, shared_ca
from zproxy.model.credentials import Credentials
from zproxy.wire.tls import TlsEngine, TlsSession


class Pair:
    """A client and a server of two engines, before their handshake."""

    def __init__(
        self,
        engines: tuple[TlsEngine, TlsEngine],
        client: Credentials | None = None,
        server: Credentials | None = None,
    ) -> None:
        self.engines = engines
        self.contexts = (
            engines[0].client(client or shared_ca().credentials(CLIENT)),
            engines[1].server(server or shared_ca().credentials(SERVER)),
        )
        self.client, self.server = self.contexts[0].session(), self.contexts[1].session()


def flush(session: TlsSession) -> bytes:
    return bytes(session.output())


def shake(client: TlsSession, server: TlsSession, piece: int = 1 << 20) -> None:
    """Run the handshake, handing over at most `piece` bytes at a time."""
    is_done = {True: False, False: False}
    for turn in range(6):
        here, there = (client, server) if turn % 2 == 0 else (server, client)
        is_done[here is client] = is_done[here is client] or here.handshake()
        ciphertext = memoryview(flush(here))
        while ciphertext:
            there.feed(ciphertext[:piece])
            ciphertext = ciphertext[piece:]
            if ciphertext and not is_done[there is client]:
                is_done[there is client] = there.handshake()
    assert all(is_done.values())


def refused(suspect: TlsSession, judge: TlsSession) -> None:
    """Run the handshake until `judge` raises."""
    suspect.handshake()
    for _ in range(4):
        judge.feed(memoryview(flush(suspect)))
        judge.handshake()
        suspect.feed(memoryview(flush(judge)))
        suspect.handshake()


def read_all(here: TlsSession, there: TlsSession) -> bytes:
    """Carry what `here` has to say, and return what `there` reads."""
    there.feed(memoryview(flush(here)))
    got, buffer = bytearray(), memoryview(bytearray(1 << 16))
    while count := there.read_into(buffer):
        got += buffer[:count]
    return bytes(got)
