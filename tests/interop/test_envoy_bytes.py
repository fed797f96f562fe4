"""What an app sends arrives, whole and in order, whichever end of the tunnel is Envoy's."""

import hashlib
import os
import socket
import struct
import threading

import pytest

from tests.support.interop import CLIENT, SERVER, Way, read_exactly, resident_kib
from tests.support.nodes import App, echo_all, exchange, peer_echo, wait_for

pytestmark = pytest.mark.root

MB = 1 << 20
NOTHING = {"bytes_sent": 0, "bytes_recv": 0}


def until_end(sock: socket.socket) -> None:
    """Hold a connection until the peer ends it: whoever ends first decides what Envoy does."""
    while sock.recv(MB):
        pass


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_connection_is_the_same_to_both_proxies(either: Way, port: int, family: str) -> None:
    app = App(either.nodes.server, port, peer_echo)
    with either.link(port, family) as link:
        answer = exchange(link.dial(), b"who am I?")
        line, entry = link.lines()[0], link.entries()[0]
        row = link.rows()[0]
        tunnel = next(each for each in link.tunnels() if each["id"] == row["tunnel"])
    app.close()
    # Envoy's server connects from its own address; zproxy's keeps the client's.
    seen = link.to.ip if either.is_outward else either.nodes.client.ips[family == "v6"]
    assert answer == f"{seen} who am I?".encode()
    assert entry["peer"] == str(CLIENT if either.is_outward else SERVER)
    assert (entry["received"], entry["sent"]) == (9, len(answer))
    assert f'src.identity="{CLIENT}"' in line
    assert f'dst.identity="{SERVER}"' in line
    sent, received = (9, len(answer)) if either.is_outward else (len(answer), 9)
    assert f"bytes_sent={sent} bytes_recv={received} duration=" in line
    assert "error=" not in line
    assert (row["state"], row["bytes_sent"], row["bytes_recv"]) == ("closed", sent, received)
    assert (tunnel["src_identity"], tunnel["dst_identity"]) == (str(CLIENT), str(SERVER))
    assert (tunnel["state"], tunnel["alpn"], tunnel["tls"][:7]) == ("open", "h2", "TLSv1.3")
    assert tunnel["role"] == ("client" if either.is_outward else "server")


def test_100_mb_up_arrive_intact(either: Way, port: int) -> None:
    data = os.urandom(MB) * 100
    digest = hashlib.sha256(data).hexdigest().encode()

    def judge(sock: socket.socket, _: object) -> None:
        seen = hashlib.sha256()
        while chunk := sock.recv(MB):
            seen.update(chunk)
        sock.sendall(seen.hexdigest().encode())

    app = App(either.nodes.server, port, judge)
    with either.link(port) as link:
        with link.dial() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_exactly(sock, 65) == digest
        line, entry = link.lines()[0], link.entries()[0]
    app.close()
    assert f"bytes_{'sent' if either.is_outward else 'recv'}={len(data)} " in line
    assert "error=" not in line
    assert entry["received"] == len(data)


def test_100_mb_down_arrive_intact(either: Way, port: int) -> None:
    data = os.urandom(MB) * 100

    def give(sock: socket.socket, _: object) -> None:
        sock.sendall(data)
        until_end(sock)

    app = App(either.nodes.server, port, give)
    with either.link(port) as link:
        with link.dial() as sock:
            got = read_exactly(sock, len(data))
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        line, entry = link.lines()[0], link.entries()[0]
    app.close()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert f"bytes_{'recv' if either.is_outward else 'sent'}={len(data)} " in line
    assert "error=" not in line
    assert entry["sent"] == len(data)


def test_the_client_may_end_first_and_still_gets_its_answer(either: Way, port: int) -> None:
    app = App(either.nodes.server, port, echo_all)
    with either.link(port) as link:
        with link.dial() as sock:
            sock.sendall(b"all that I have to say" * 1000)
            sock.shutdown(socket.SHUT_WR)
            assert read_exactly(sock, MB) == b"all that I have to say" * 1000
        assert "error=" not in link.lines()[0]
        assert link.entries()[0]["flags"] == "-"
    app.close()


def test_an_app_that_ends_first_is_heard_to_the_end(either: Way, port: int) -> None:
    """Envoy's server ends its half of the stream, and then resets it with NO_ERROR: nothing is lost by that.

    Its app can say no more afterwards: where both ends are ours it could.
    """
    seen_by_app: list[bytes] = []

    def leave(sock: socket.socket, _: object) -> None:
        sock.sendall(b"goodbye")
        sock.shutdown(socket.SHUT_WR)
        seen_by_app.append(sock.recv(100))

    app = App(either.nodes.server, port, leave)
    with either.link(port) as link:
        with link.dial() as sock:
            assert read_exactly(sock, 8) == b"goodbye"
        line = link.lines()[0]
    app.close()
    assert "error=" not in line
    assert seen_by_app == [b""]


def test_an_answer_that_envoy_cuts_off_never_looks_complete(outward: Way, port: int) -> None:
    """Its server may reset a stream whose app ends while much is under way: a reset for our app, too."""
    data = os.urandom(MB) * 16
    app = App(outward.nodes.server, port, lambda sock, _: sock.sendall(data))
    with outward.link(port) as link:
        got = bytearray()
        is_reset = False
        with link.dial() as sock:
            try:
                while chunk := sock.recv(MB):
                    got += chunk
            except ConnectionResetError:
                is_reset = True
        line = link.lines()[0]
    app.close()
    assert data.startswith(got)
    assert is_reset or len(got) == len(data)
    assert is_reset == ("the peer reset the stream" in line)


def test_a_reset_of_the_client_ends_the_server_apps_connection(either: Way, port: int) -> None:
    """With a reset if the server is ours; Envoy's turns RST_STREAM into a mere end."""
    outcome: list[BaseException | bytes] = []

    def handle(sock: socket.socket, _: object) -> None:
        sock.sendall(b"begun")
        try:
            outcome.append(sock.recv(10))
        except OSError as error:
            outcome.append(error)

    app = App(either.nodes.server, port, handle)
    with either.link(port) as link:
        sock = link.dial()
        assert read_exactly(sock, 5) == b"begun"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        wait_for(lambda: outcome, "the server app's connection ends")
        assert link.lines()
    app.close()
    assert outcome == [b""] if either.is_outward else isinstance(outcome[0], ConnectionResetError)


def test_a_reset_of_the_server_app_reaches_the_client(either: Way, port: int) -> None:
    def handle(sock: socket.socket, _: object) -> None:
        sock.recv(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    app = App(either.nodes.server, port, handle)
    with either.link(port) as link:
        with pytest.raises(ConnectionResetError):
            exchange(link.dial(), b"go")
        line = link.lines()[0]
    app.close()
    assert "\terror\taccess\t" in line


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_stalled_reader_stops_its_sender_and_nobody_else(either: Way, port: int, direction: str) -> None:
    """Windows and socket buffers fill up, then the sender waits: the proxy keeps no more than a window."""
    go_on = threading.Event()
    data = os.urandom(MB) * 64

    def handle(sock: socket.socket, _: object) -> None:
        kind = sock.recv(1)
        if kind == b"e":
            sock.sendall(b"echo " + sock.recv(100))
        elif direction == "up":
            go_on.wait(20)
            sock.sendall(hashlib.sha256(read_exactly(sock, len(data))).digest())
        else:
            sock.sendall(data)
        until_end(sock)

    app = App(either.nodes.server, port, handle)
    with either.link(port) as link:
        before = resident_kib(either.node)
        stalled = link.dial()
        stalled.sendall(b"s")
        if direction == "up":
            sender = threading.Thread(target=stalled.sendall, args=(data,))
            sender.start()

        def moved() -> int:
            row = min(link.rows(), key=lambda each: int(each["id"]), default=NOTHING)
            return int(row["bytes_sent"]) + int(row["bytes_recv"])

        def stands_still() -> bool:
            before = moved()
            for _ in range(5):
                assert exchange(link.dial(), b"ehello") == b"echo hello"
            return before > MB and moved() == before

        wait_for(stands_still, "the stalled stream moves no more bytes, others go on")
        grown = resident_kib(either.node) - before
        if direction == "up":
            go_on.set()
            answer = read_exactly(stalled, 32)
            sender.join()
            assert answer == hashlib.sha256(data).digest()
        else:
            assert hashlib.sha256(read_exactly(stalled, len(data))).digest() == hashlib.sha256(data).digest()
        stalled.close()
    app.close()
    assert grown < 24 << 10
