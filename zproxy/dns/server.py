"""The DNS server of one pod, on port 15053 of its straw."""

import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import dns.edns
import dns.opcode
import dns.rcode
import dns.rdatatype

from zproxy.dns import message
from zproxy.dns.answers import Answers
from zproxy.dns.datagrams import Datagrams
from zproxy.dns.forwarder import Forwarder
from zproxy.dns.locals import Locals
from zproxy.dns.message import MalformedError, Query
from zproxy.dns.streams import Stream
from zproxy.model.addr import Endpoint
from zproxy.model.pod import ResolvConf
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.net.sockets import SocketFactory, close_with_reset, peer_of
from zproxy.net.worker import Worker
from zproxy.observe.dns import DnsCounts, dns_labels
from zproxy.observe.series import Labels
from zproxy.state.names import Asker
from zproxy.state.store import Mesh

PORT: Final = 53
"""Of resolvers."""
TRANSFERS: Final = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)

FindResolver = Callable[[str], Endpoint | None]
"""Returns the resolver that an alias address stands for."""
Reply = Callable[[bytes], None]

_log = logging.getLogger("zproxy.dns")


class DnsServer:
    """Answers what the mesh knows, and passes everything else to the resolver that the app addressed.

    Open from `open` to `close`; serves nobody but the pod itself.
    """

    def __init__(  # noqa: PLR0913 - all that a pod's DNS may use, spelled out
        self,
        *,
        worker: Worker,
        sockets: SocketFactory,
        workload: Callable[[], Workload],
        mesh: Callable[[], Mesh],
        settings: Settings,
        find_resolver: FindResolver,
        counts: DnsCounts,
    ) -> None:
        self._worker = worker
        self._sockets = sockets
        self._workload = workload
        self._settings = settings
        self._find_resolver = find_resolver
        self._counts = counts
        self._conf = ResolvConf()
        self._answers = Answers(mesh, self.asker)
        self._own = Locals(sockets.is_own, worker.poller)
        self._forwarder = Forwarder(worker, sockets, counts)
        self._datagrams: Datagrams | None = None
        self._streams: set[Stream] = set()

    def open(self, sock: socket.socket) -> None:
        """Take queries from a UDP socket, which belongs to the server from now on."""
        self._datagrams = Datagrams(sock, self._worker, self._own, self._take_datagram, self._counts.drop)

    @property
    def datagrams_fd(self) -> int:
        """Return the descriptor of the UDP socket; -1 when there is none."""
        return -1 if self._datagrams is None else self._datagrams.sock.fileno()

    def use(self, conf: ResolvConf) -> None:
        """Follow the pod's resolv.conf: its search list, and its resolvers where none was addressed."""
        if conf != self._conf:
            self._conf = conf
            self._answers.forget()

    def asker(self) -> Asker:
        """Return on whose behalf names are looked up."""
        settings = self._settings
        favourite = settings.preferred_service_namespace
        return Asker(self._workload(), settings.cluster_domain, self._conf.search, favourite)

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Take a connection over TCP; see Listener."""
        if not self._own.has(peer_of(address).ip):
            self._refuse(sock, "stranger")
        elif len(self._streams) >= self._worker.limits.dns_clients:
            self._refuse(sock, "full")
        else:
            resolver = self._sockets.original_destination(sock)
            stream = Stream(sock, resolver, self._worker, self._take_stream, self._streams.discard)
            self._streams.add(stream)

    def drain(self) -> None:
        """Take nothing new over UDP; what is under way is still answered where it came by TCP."""
        if self._datagrams is not None:
            self._datagrams.close()

    def close(self) -> None:
        """End everything now."""
        self.drain()
        self._forwarder.close()
        for stream in tuple(self._streams):
            stream.close()

    def _refuse(self, sock: socket.socket, why: str) -> None:
        self._counts.drop(why)
        close_with_reset(sock)

    def _take_datagram(self, wire: bytes, alias: str, reply: Reply) -> None:
        resolver = self._find_resolver(alias)
        self._take(wire, resolver, reply, is_stream=False)

    def _take_stream(self, wire: bytes, resolver: Endpoint | None, reply: Reply) -> None:
        self._take(wire, resolver, reply, is_stream=True)

    def _take(self, wire: bytes, resolver: Endpoint | None, reply: Reply, *, is_stream: bool) -> None:
        try:
            query = message.parse(wire)
        except MalformedError as error:
            self._counts.drop("malformed")
            reply(error.reply)
            return
        workload = self._workload()
        kind = dns.rdatatype.to_text(query.kind)
        labels = dns_labels(kind, "tcp" if is_stream else "udp", workload)
        self._counts.asked(labels)
        limit = message.LARGEST if is_stream else query.payload
        known = self._answers.find(query.name, query.kind)
        if known is not None:
            reply(self._answers.wire(known, query, limit))
            _tell(workload, query, "answered", known.size)
        elif query.kind in TRANSFERS:
            why = dns.edns.EDECode.NOT_SUPPORTED, "zone transfers are not passed on"
            reply(message.failure(query, dns.rcode.REFUSED, *why))
        elif query.message is None and resolver is None:
            reply(message.bare(query.wire, dns.rcode.NOTIMP))
        else:
            _tell(workload, query, "forwarded", 0)
            self._forward(query, resolver, limit, labels, reply, is_stream=is_stream)

    def _forward(
        self,
        query: Query,
        resolver: Endpoint | None,
        limit: int,
        labels: Labels,
        reply: Reply,
        *,
        is_stream: bool,
    ) -> None:
        servers = (
            [resolver] if resolver is not None else [Endpoint(ip, PORT) for ip in self._conf.nameservers]
        )
        done = partial(self._pass_on, query, limit, reply)
        self._forwarder.forward(query, servers, labels, done, is_stream=is_stream)

    def _pass_on(self, query: Query, limit: int, reply: Reply, answer: bytes) -> None:
        """Hand a resolver's answer on. It does not know the mesh, so it may deny a name that exists."""
        if message.is_nxdomain(answer) and query.message is not None and self._answers.has(query.name):
            answer = message.as_nodata(answer)
        reply(answer if len(answer) <= limit else message.truncated(query, answer))


def _tell(workload: Workload, query: Query, result: str, endpoints: int) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            'dns src.workload="%s" src.namespace="%s" query="%s" domain="%s" result="%s" endpoints=%d',
            workload.name,
            workload.namespace,
            dns.rdatatype.to_text(query.kind),
            query.name,
            result,
            endpoints,
        )
