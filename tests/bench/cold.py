"""A client of full mTLS handshakes, one after the other: TLS, then HTTP/2 SETTINGS in both directions.

Run as a program, because it runs inside a pod: CHAIN KEY ROOTS WARM SPAN HOST PORT. It speaks the protocol of
the load generator. Waiting for the server's SETTINGS matters: in TLS 1.3 the client is done before the server
has looked at its certificate.
"""

import json
import socket
import ssl
import sys
import time
from typing import Final

HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The connection preface and an empty SETTINGS frame (RFC 9113 3.4)."""


def handshake(context: ssl.SSLContext, to: tuple[str, int]) -> None:
    """Connect, shake hands and wait for the server's SETTINGS; raise OSError when it refuses."""
    plain = socket.create_connection(to, timeout=5)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the preface does not wait for an ACK
    with context.wrap_socket(plain) as sock:
        sock.sendall(HELLO)
        if not sock.recv(65536):
            raise ConnectionError("the server closed after the handshake")


def main(*words: str) -> None:
    """Shake hands until the window is over and print what happened in it."""
    chain, key, roots, warm, span, host, port = words
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # SPIFFE: the name is in a URI SAN, and the load does not care which
    context.load_verify_locations(roots)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    to = (host, int(port))
    warm_until = time.monotonic() + float(warm)
    while time.monotonic() < warm_until:
        handshake(context, to)
    print("start", flush=True)
    began, count = time.monotonic(), 0
    while (now := time.monotonic()) < began + float(span):
        handshake(context, to)
        count += 1
    print("end", flush=True)
    print(json.dumps({"seconds": now - began, "operations": count}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
