"""istio-cni's end of ZDS, played by the test: a SEQPACKET server that hands over descriptors."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from zproxy.zds import wire
from zproxy.zds.wire import Ack, Add, Delete, Keep, SnapshotSent, WorkloadInfo

WAIT_S = 10.0


class IstioCni:
    """Listens at `path`; the last connection is the one that is spoken on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(WAIT_S)
        self.sock: socket.socket | None = None

    def accept(self) -> None:
        """Wait for a connection and its hello."""
        if self.sock is not None:
            self.sock.close()
        self.sock, _ = self._listener.accept()
        self.sock.settimeout(WAIT_S)
        assert wire.decode_hello(self._receive()) == 1

    def add(self, uid: str, pod: str, netns: int, account: str | None = None) -> Ack:
        """Hand over `namespace/name`; its service account is its name if not given."""
        namespace, name = pod.split("/")
        info = WorkloadInfo(name, namespace, account or name)
        return self.ask(Add(uid, info), [netns])

    def keep(self, uid: str) -> Ack:
        return self.ask(Keep(uid))

    def delete(self, uid: str) -> Ack:
        return self.ask(Delete(uid))

    def snapshot(self) -> Ack:
        return self.ask(SnapshotSent())

    def ask(self, request: wire.Request | bytes, fds: Sequence[int] = ()) -> Ack:
        """Send a request, or bytes that are none, and return its answer."""
        self.send(request, fds)
        return self.answer()

    def send(self, request: wire.Request | bytes, fds: Sequence[int] = ()) -> None:
        """Send and wait for nothing."""
        assert self.sock is not None
        data = request if isinstance(request, bytes) else wire.encode(request)
        socket.send_fds(self.sock, [data], fds)

    def answer(self) -> Ack:
        """Return the next answer."""
        return wire.decode_ack(self._receive())

    def is_closed(self) -> bool:
        """Wait for the other side to close, and tell that it did."""
        assert self.sock is not None
        try:
            return self.sock.recv(2048) == b""
        except ConnectionResetError:
            return True  # it closed with something unread

    def hang_up(self) -> None:
        """Close the connection."""
        assert self.sock is not None
        self.sock.close()
        self.sock = None

    def close(self) -> None:
        """Go away; the next one may listen at the same path."""
        if self.sock is not None:
            self.hang_up()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _receive(self) -> bytes:
        assert self.sock is not None
        return self.sock.recv(2048)


@contextlib.contextmanager
def istio_cni(path: Path) -> Iterator[IstioCni]:
    """Listen for the block."""
    made = IstioCni(path)
    try:
        yield made
    finally:
        made.close()
