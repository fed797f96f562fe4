"""The DNS servers of the lab: `python -m zproxy.lab.resolver --listen 10.96.0.10`. UDP and TCP, port 53.

They know a few names of example.com and none of the mesh, so an answer about the mesh comes from zproxy.
whoami.example.com says which server was asked, and large.example.com has more than a datagram of 512 bytes
can hold.
"""

import argparse
import os
import socketserver
import threading
from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

PORT: Final = 53
TTL_S: Final = 30
PLAIN_SIZE: Final = 512
"""RFC 1035 4.2.1: the longest answer over UDP to a query without EDNS."""
LARGEST_SIZE: Final = 65535
"""Of a message over TCP (RFC 1035 4.2.2)."""
LARGE: Final = 16
"""Strings of 200 bytes in the large answer."""
_ZONE: Final = dns.name.from_text("example.com.")
_SOA: Final = "ns.example.com. hostmaster.example.com. 1 3600 600 86400 30"
_IDLE_S: Final = 10.0


def answer(wire: bytes, address: str, transport: str) -> bytes | None:
    """Return the answer of the server at `address` to a query; None for what is no query."""
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return None
    if query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    response = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    texts = _records(question.name, f"asked {address} over {transport}")
    if texts is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    found = (texts or {}).get(dns.rdatatype.to_text(question.rdtype), [])
    if found:
        response.answer.append(_rrset(question.name, question.rdtype, found))
    elif question.name.is_subdomain(_ZONE):
        response.authority.append(_rrset(_ZONE, dns.rdatatype.SOA, [_SOA]))
    return _fitted(response, query, transport)


def _records(name: dns.name.Name, who: str) -> dict[str, list[str]] | None:
    """Return what there is under a name, by type; None when there is no such name."""
    known: dict[str, dict[str, list[str]]] = {
        "example.com.": {"SOA": [_SOA]},
        "www.example.com.": {"A": ["203.0.113.80"], "AAAA": ["2001:db8::80"]},
        "whoami.example.com.": {"TXT": [f'"{who}"']},
        "large.example.com.": {"TXT": [f'"{number:02} {"x" * 197}"' for number in range(LARGE)]},
    }
    return known.get(name.to_text().lower())


def _rrset(name: dns.name.Name, kind: dns.rdatatype.RdataType, texts: list[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, TTL_S, "IN", kind, *texts)


def _fitted(response: dns.message.Message, query: dns.message.Message, transport: str) -> bytes:
    if transport == "tcp":
        return response.to_wire(max_size=LARGEST_SIZE)  # or dnspython keeps to the payload for UDP
    size = max(PLAIN_SIZE, query.payload) if query.edns >= 0 else PLAIN_SIZE
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        short = dns.message.make_response(query, recursion_available=True)
        short.flags |= dns.flags.TC
        return short.to_wire()


class _Datagrams(socketserver.ThreadingUDPServer):
    daemon_threads = True
    max_packet_size = 4096


class _Streams(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Datagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer one datagram from the address that it was sent to."""
        wire, server = self.request
        found = answer(wire, server.getsockname()[0], "udp")
        if found is not None:
            server.sendto(found, self.client_address)


class _Stream(socketserver.StreamRequestHandler):
    timeout = _IDLE_S

    def handle(self) -> None:
        """Answer queries, each with its length before it (RFC 1035 4.2.2), until the client ends."""
        while len(head := self.rfile.read(2)) == 2:
            wire = self.rfile.read(int.from_bytes(head, "big"))
            found = answer(wire, self.request.getsockname()[0], "tcp")
            if found is None:
                return
            self.wfile.write(len(found).to_bytes(2, "big") + found)


def serve(addresses: Sequence[str], port: int) -> list[socketserver.BaseServer]:
    """Begin to answer at each of the addresses, IPv4; a server per transport ends with `shutdown`."""
    servers: list[socketserver.BaseServer] = []
    for address in addresses:
        streams = _Streams((address, port), _Stream)
        datagrams = _Datagrams(streams.server_address[:2], _Datagram)
        servers += [datagrams, streams]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return servers


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="zproxy.lab.resolver", description="The DNS servers of the lab")
    parser.add_argument("--listen", action="append", required=True, help="an address; may be repeated")
    parser.add_argument("--log", help="append what goes wrong to this file")
    options = parser.parse_args(argv)
    if options.log:
        log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    serve(options.listen, PORT)
    threading.Event().wait()


if __name__ == "__main__":
    main()
