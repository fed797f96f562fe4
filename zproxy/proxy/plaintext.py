"""15006: what reaches the pod outside HBONE. Passed on to the app with the client's address preserved."""

import socket

from zproxy.hbone.client import connect_error
from zproxy.model import ports
from zproxy.model.conn import Direction
from zproxy.net.sockets import close_with_reset, peer_of
from zproxy.proxy.authorize import REJECTED
from zproxy.proxy.context import PodContext
from zproxy.proxy.plain import PlainRelay


class Plaintext:
    """Accepts what steering assigned to the listener: the socket's own address is what the client dialled."""

    def __init__(self, pod: PodContext) -> None:
        self._pod = pod

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Connect on to the app, unless the client dialled a port of ours."""
        pod = self._pod
        src, dst = peer_of(address), pod.sockets.arrived_at(sock)
        connection = pod.connections.open(pod.name, Direction.INBOUND, src, dst, pod.worker.poller.now)
        if dst.port in ports.ILLEGAL:
            close_with_reset(sock)
            text = f"attempted recursive call to ourselves: {dst} is a listener of the mesh proxy"
            pod.connections.end(connection, pod.worker.poller.now, text, "DENY")
            return
        source = pod.mesh().by_ip(src.ip, pod.workload.network)
        connection.peers = pod.peers(Direction.INBOUND, source, pod.workload, dst.port)
        verdict = pod.authorize(connection.peers, src.ip, dst)
        if not verdict.is_allowed:
            close_with_reset(sock)
            pod.connections.end(connection, pod.worker.poller.now, REJECTED + verdict.reason, "DENY")
            return
        try:
            far = pod.sockets.dial_app(dst, src.ip)
        except OSError as error:
            close_with_reset(sock)
            text = connect_error(str(dst), error.errno or 0)
            pod.connections.end(connection, pod.worker.poller.now, text, "CONNECT")
            return
        PlainRelay(pod, near=sock, far=far, connection=connection, is_far_app=True)
