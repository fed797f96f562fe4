"""The connection to istio-cni: packets, descriptors, and that none of these is ever left open."""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.steering import open_files
from zproxy.zds import channel
from zproxy.zds.channel import Channel, Packet, PacketBroken


@pytest.fixture
def pipe() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and istio-cni's end of it; afterwards nothing is open."""
    before = open_files()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    made = Channel(ours)
    with theirs:
        yield made, theirs
        made.close()
    assert open_files() == before


def receive(made: Channel, seconds: float = 5) -> Packet | None:
    return asyncio.run(asyncio.wait_for(made.receive(), seconds))


def fail(work: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(PacketBroken) as caught:
        asyncio.run(work())  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 2, 253])
def test_a_packet_brings_its_descriptors(pipe: tuple[Channel, socket.socket], count: int) -> None:
    made, theirs = pipe
    with Path("/dev/null").open() as file:
        socket.send_fds(theirs, [b"hello"], [file.fileno()] * count)
    packet = receive(made)
    assert packet is not None
    assert (packet.data, len(packet.fds)) == (b"hello", count)
    assert not any(os.get_inheritable(fd) for fd in packet.fds)
    packet.close()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_packet_that_is_too_long_is_an_error_and_its_descriptors_are_closed(
    pipe: tuple[Channel, socket.socket], count: int
) -> None:
    made, theirs = pipe
    with Path("/dev/null").open() as file:
        socket.send_fds(theirs, [bytes(1025)], [file.fileno()] * count)
        socket.send_fds(theirs, [bytes(1024)], [])
    assert fail(made.receive) == "a packet of more than 1024 bytes"
    assert receive(made) == Packet(bytes(1024))


def test_no_room_for_descriptors_is_an_error(pipe: tuple[Channel, socket.socket]) -> None:
    made, theirs = pipe
    with Path("/dev/null").open() as file:
        socket.send_fds(theirs, [b"hello"], [file.fileno()] * 200)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.new_event_loop()  # it takes descriptors itself
    lowest = os.dup(theirs.fileno())
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, hard))
        with pytest.raises(PacketBroken, match="could not be received"):
            loop.run_until_complete(made.receive())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop.close()


def test_credentials_are_no_descriptors(pipe: tuple[Channel, socket.socket]) -> None:
    made, theirs = pipe
    made._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    mine = struct.pack("iII", os.getpid(), os.getuid(), os.getgid())
    theirs.sendmsg([b"hello"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, mine)])
    assert receive(made) == Packet(b"hello")


def test_the_end_is_none(pipe: tuple[Channel, socket.socket]) -> None:
    made, theirs = pipe
    theirs.send(b"last")
    theirs.close()
    assert receive(made) == Packet(b"last")
    assert receive(made) is None


def test_a_packet_of_descriptors_alone_is_a_packet(pipe: tuple[Channel, socket.socket]) -> None:
    made, theirs = pipe
    with Path("/dev/null").open() as file:
        theirs.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))])
    packet = receive(made)
    assert packet is not None
    assert len(packet.fds) == 1
    packet.close()


def test_waiting_ends(pipe: tuple[Channel, socket.socket]) -> None:
    made, _ = pipe
    with pytest.raises(TimeoutError):
        receive(made, 0.01)


def test_what_comes_later_is_waited_for(pipe: tuple[Channel, socket.socket]) -> None:
    made, theirs = pipe

    async def exchange() -> Packet | None:
        waiting = asyncio.ensure_future(made.receive())
        asyncio.get_running_loop().call_soon(theirs.send, b"late")
        return await waiting

    assert asyncio.run(exchange()) == Packet(b"late")


def test_who_does_not_read_is_given_up(
    pipe: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, theirs = pipe
    monkeypatch.setattr(channel, "SEND_S", 0.01)

    async def flood() -> None:
        while True:
            await made.send(bytes(1024))

    with pytest.raises(TimeoutError):
        asyncio.run(flood())
    assert theirs.recv(2048) == bytes(1024)


def test_nobody_there_is_an_error_at_once(tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(FileNotFoundError):
        Channel.connect(str(tmp_path / "none"))
    assert open_files() == before


def test_a_full_backlog_is_an_error_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "zds.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen(0)
        first = Channel.connect(path)
        with pytest.raises(BlockingIOError):
            Channel.connect(path)
        first.close()


def test_a_server_is_reached(tmp_path: Path) -> None:
    path = str(tmp_path / "zds.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen(1)
        made = Channel.connect(path)
        with server.accept()[0] as theirs:
            asyncio.run(made.send(b"hello"))
            assert theirs.recv(16) == b"hello"
        made.close()
