"""The HTTP app of the lab: `python -m zproxy.lab.app --port 8080`. Plain HTTP/1.1, dual stack.

GET /get answers {"origin": "<peer ip:port>", "url": ..., "headers": ...}; GET /bytes/N answers N bytes;
POST anything answers {"length": ..., "sha256": ...} of the body; POST /echo answers the body itself.
"""

import argparse
import hashlib
import json
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from zproxy.model.addr import Endpoint, canonical_ip

_CHUNK: Final = 1 << 16
_MAX_BODY: Final = 4 << 30
_PATTERN: Final = bytes(range(256)) * (_CHUNK // 256)


def pattern(size: int) -> Iterator[bytes]:
    """Yield the `size` bytes that /bytes/SIZE answers: 00 01 ... ff, over and over."""
    while size > 0:
        yield _PATTERN[:size]
        size -= _CHUNK


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer /get, /bytes/N, and / as a health check."""
        path, _, _ = self.path.partition("?")
        size = path.removeprefix("/bytes/")
        if path in ("/", "/get"):
            self._answer({"origin": self._origin(), "url": self.path, "headers": dict(self.headers.items())})
        elif path.startswith("/bytes/") and size.isdigit() and int(size) <= _MAX_BODY:
            self._head(200, "application/octet-stream", int(size))
            for chunk in pattern(int(size)):
                self.wfile.write(chunk)
        else:
            self._answer({"error": f"nothing is at {path}"}, status=404)

    def do_POST(self) -> None:
        """Answer /echo with the body as it comes, everything else with the body's length and hash."""
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > _MAX_BODY:
            self.close_connection = True
            self._answer({"error": "a POST needs a Content-Length"}, status=411)
        elif self.path.partition("?")[0] == "/echo":
            self._head(200, "application/octet-stream", int(size))
            for chunk in self._body(int(size)):
                self.wfile.write(chunk)
        else:
            digest, length = hashlib.sha256(), 0
            for chunk in self._body(int(size)):
                digest.update(chunk)
                length += len(chunk)
            self._answer({"length": length, "sha256": digest.hexdigest(), "origin": self._origin()})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Write one line per request to standard output, the app's log."""
        print(self._origin(), format % args, flush=True)  # noqa: T201  # the app's log

    def _body(self, left: int) -> Iterator[bytes]:
        while left > 0:
            chunk = self.rfile.read(min(left, _CHUNK))
            if not chunk:
                self.close_connection = True
                return
            left -= len(chunk)
            yield chunk

    def _origin(self) -> str:
        return str(Endpoint(canonical_ip(self.client_address[0]), self.client_address[1]))

    def _answer(self, value: dict[str, object], status: int = 200) -> None:
        body = json.dumps(value).encode() + b"\n"
        self._head(status, "application/json", len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()


class DualStackServer(ThreadingHTTPServer):
    """Listens on every address of both families, IPv4 only where the pod has no IPv6."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int) -> None:
        self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        super().__init__(("", port), Handler)

    def server_bind(self) -> None:
        """Take IPv4 as well on an IPv6 socket, and skip the base class's name look-up."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in one line that a client went away; the other connections do not care."""
        print(f"{client_address}: {sys.exc_info()[1]}", flush=True)  # noqa: T201  # the app's log


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until killed, or until standard input ends with `--until-stdin-ends`."""
    parser = argparse.ArgumentParser(prog="zproxy.lab.app", description="The HTTP app of the lab")
    parser.add_argument(
        "--port", type=int, action="append", required=True, help="listen here; may be repeated"
    )
    parser.add_argument("--log", help="append one line per request to this file")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end when the starter does")
    options = parser.parse_args(argv)
    if options.log:
        log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    for port in options.port:
        threading.Thread(target=DualStackServer(port).serve_forever, name=f"port {port}", daemon=True).start()
    if options.until_stdin_ends:
        _wait_for_end_of(0)
    else:
        threading.Event().wait()


def _wait_for_end_of(fd: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while selector.select():
            if not os.read(fd, 4096):
                return


if __name__ == "__main__":
    main()
