"""Sockets of a straw: made inside the pod's namespace, so that packets carry the pod's own address.

Everything is non-blocking. Sockets that leave the pod are exempted from steering one by one, through
their fd; an app cannot do that to its own, whatever capability it holds (unlike a mark or a uid).
"""

import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from zproxy.config import SOURCE_MARK
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.net import datagrams
from zproxy.net.netns import Netns

SO_MARK: Final = 36
SO_ORIGINAL_DST: Final = 80
"""Level SOL_IP for IPv4 (linux/netfilter_ipv4.h), SOL_IPV6 for IPv6; our getsockopt program answers it."""
IP_TRANSPARENT: Final = 19
"""Bind to an address that is not ours (CAP_NET_ADMIN); with it IP_FREEBIND would add nothing."""
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Choose the source port at connect, when the destination is known: ports are then shared (Linux 4.2)."""
IPV6_TRANSPARENT: Final = 75
TCP_NOTSENT_LOWAT: Final = 25
KEEPALIVE_S: Final = 180
"""Idle time and interval of TCP keepalive, ztunnel's values."""
KEEPALIVE_PROBES: Final = 9
NOTSENT_LOWAT: Final = 128 << 10
"""Unsent bytes above which a tunnel's socket is not writable: small streams stay fast beside a bulk one."""

_RESET: Final = struct.pack("ii", 1, 0)
_SOCKADDR_IN6: Final = 28


class SocketFactory:
    """What a listener or dialler knows about namespaces: it asks for a socket and gets the pod's.

    `exempt` marks one fd as the proxy's own for the steering programs.
    """

    def __init__(self, netns: Netns, exempt: Callable[[int], None]) -> None:
        self._netns = netns
        self._exempt = exempt

    def listen(self, port: int, backlog: int) -> socket.socket:
        """Return a dual-stack listener on `port` (IPv4 only where the pod has no IPv6).

        Raise OSError, EADDRINUSE among them. What it accepts inherits its options.
        """
        return self._netns.run(lambda: _listen(port, backlog))

    def bind_datagrams(self, port: int) -> socket.socket:
        """Return a dual-stack UDP socket on `port` for zproxy.net.datagrams; likewise."""
        return self._netns.run(lambda: _datagrams(port))

    def dial(self, to: Endpoint) -> socket.socket:
        """Start a connection that leaves the pod from the pod's own address, exempt from steering.

        It is in progress when this returns; an immediate failure raises OSError.
        """

        return self._netns.run(lambda: _connecting(to, lambda sock: self._exempt(sock.fileno())))

    def dial_app(self, to: Endpoint, source_ip: str) -> socket.socket:
        """Start a connection to the pod's app on `to` whose source address is `source_ip`.

        The app sees its true client. SO_MARK makes the replies return over lo (see zproxy.node.routes);
        it exempts nothing: the destination is the pod's own address, which is never steered. There is no
        keepalive: both ends are of one kernel, and neither can vanish without the other.
        """

        return self._netns.run(lambda: _connecting(to, lambda sock: self._prepare_app(sock, to, source_ip)))

    def dial_datagrams(self, to: Endpoint) -> socket.socket:
        """Return a UDP socket from a port drawn for it, exempt from steering, that hears nobody but `to`.

        Raise OSError.
        """

        def dial() -> socket.socket:
            return _connecting(to, lambda sock: self._exempt(sock.fileno()), socket.SOCK_DGRAM)

        return self._netns.run(dial)

    def is_own(self, ip: str) -> bool:
        """Tell whether `ip` is an address of the pod, so that nobody else can have connected from it.

        The kernel drops what comes from outside with a source that is local (a martian, RFC 1812 5.3.7) in
        IPv4 only. In IPv6 it answers it inside, so that nobody outside completes a handshake; for datagrams
        see zproxy.net.datagrams.
        """
        return self._netns.run(lambda: _is_local(ip))

    def _prepare_app(self, sock: socket.socket, to: Endpoint, source_ip: str) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_ip != to.ip:
            _borrow_source(sock, source_ip, is_v6=to.is_v6)

    def original_destination(self, sock: socket.socket) -> Endpoint | None:
        """Return where the app dialled, for a connection that steering brought to us; None for any other."""
        try:
            raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
            return Endpoint(socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big"))
        except OSError:
            pass
        try:
            raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _SOCKADDR_IN6)
        except OSError:
            return None
        ip = canonical_ip(socket.inet_ntop(socket.AF_INET6, raw[8:24]))
        return Endpoint(ip, int.from_bytes(raw[2:4], "big"))

    def arrived_at(self, sock: socket.socket) -> Endpoint:
        """Return what a client outside dialled: steering leaves it as it was."""
        return peer_of(sock.getsockname())


def peer_of(address: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """Return a socket address as accept(2) or getsockname(2) gave it, in canonical form."""
    return Endpoint(canonical_ip(address[0]), address[1])


def tune(sock: socket.socket) -> None:
    """Set what every stream socket of ours has: no Nagle, keepalive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock)


def tune_tunnel(sock: socket.socket) -> None:
    """Set what a tunnel's socket has. PINGs find a peer that died under streams, keepalive any other."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    _keep_alive(sock)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def connect_progress(sock: socket.socket, to: Endpoint) -> int:
    """Ask what became of a connect that was begun: 0 when it is up, EINPROGRESS, or why it failed.

    Over lo the handshake is complete when connect(2) returns, though it says EINPROGRESS; to ask once more
    costs less than a turn of the poller.
    """
    code = sock.connect_ex(to)
    if code == errno.EISCONN:
        return 0
    return errno.EINPROGRESS if code == errno.EALREADY else code


def close_with_reset(sock: socket.socket) -> None:
    """Close so that the peer sees RST: it must not take an aborted stream for a complete one."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        sock.close()


def _listen(port: int, backlog: int) -> socket.socket:
    sock, address = _dual_stack(socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _datagrams(port: int) -> socket.socket:
    sock, address = _dual_stack(socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        datagrams.prepare(sock)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _dual_stack(kind: socket.SocketKind) -> tuple[socket.socket, str]:
    """Return a socket for both families, IPv4 alone where there is no IPv6, and the address of all."""
    try:
        sock = socket.socket(socket.AF_INET6, kind)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET, kind), "0.0.0.0"  # noqa: S104 - in the pod, for its peers
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock, "::"


def _is_local(ip: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((ip, 0))
        except OSError:
            return False
    return True


def _connecting(
    to: Endpoint,
    prepare: Callable[[socket.socket], None],
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> socket.socket:
    """Return a socket whose connect is in progress, after `prepare` had it; closed when either fails."""
    sock = socket.socket(socket.AF_INET6 if to.is_v6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        prepare(sock)
        code = sock.connect_ex(to)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
    except BaseException:
        sock.close()
        raise
    return sock


def _borrow_source(sock: socket.socket, source_ip: str, *, is_v6: bool) -> None:
    if is_v6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, SOURCE_MARK)
    sock.bind((source_ip, 0))
