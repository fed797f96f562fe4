"""Makes traffic between two pods: curl in one, an HTTP app in the other when none is there, one datagram."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import RequirementError, ZproxyError
from zproxy.lab import inside
from zproxy.lab.evidence import sockets
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.net.netns import Netns

CURL_TIMEOUT_S: Final = 10
_APP_START_S: Final = 10.0
_DATAGRAM_S: Final = 2.0
_FORMAT: Final = "\n%{http_code} %{local_port} %{remote_port} %{local_ip} %{remote_ip}"
_MAX_BODY: Final = 1 << 20


class Answer(NamedTuple):
    """What one curl got, and the connection's two ends as curl saw them."""

    command: str
    status: int
    local: Endpoint
    remote: Endpoint
    body: bytes
    error: str = ""
    host: str = ""
    """What was asked for, when it was a name."""


class Datagram(NamedTuple):
    """One UDP datagram that was sent, and whether it arrived as it was."""

    src: Endpoint
    dst: Endpoint
    payload: bytes
    arrived: bool


def curl(netns: Netns, to: Endpoint, path: str) -> Answer:
    """Run curl inside `netns` as an operator would; a request that fails is an Answer with `error`.

    Raise RequirementError when curl is not installed.
    """
    return _curl(netns, f"http://{to}{path}", f"nsenter --net={netns.path}", ())


def curl_by_name(netns: Netns, host: str, port: int, path: str) -> Answer:
    """Run curl with a name to be looked up, as the pod's resolv.conf in /etc/netns says."""
    wrapped = ("ip", "netns", "exec", Path(netns.path).name)
    answer = _curl(netns, f"http://{host}:{port}{path}", " ".join(wrapped), wrapped)
    return answer._replace(host=host)


def _curl(netns: Netns, url: str, shown: str, wrapped: tuple[str, ...]) -> Answer:
    limits = ("--max-time", str(CURL_TIMEOUT_S), "--max-filesize", str(_MAX_BODY))
    argv = (*wrapped, "curl", "-sS", "--noproxy", "*", *limits, "-w", _FORMAT, url)
    try:
        status, out, error = inside.output(netns, argv, CURL_TIMEOUT_S + 5)
    except RequirementError as missing:
        raise RequirementError(
            "curl or ip is not installed: apt-get install curl iproute2"
            if wrapped
            else "curl is not installed: apt-get install curl"
        ) from missing
    body, _, measured = out.rpartition(b"\n")
    return _answer(
        f"{shown} curl -s '{url}'",
        body,
        measured.decode(),
        error.decode().strip() if status else "",
    )


def datagram(source: Netns, target: Netns, src_ip: str, dst_ip: str, payload: bytes) -> Datagram:
    """Send `payload` over UDP from a socket in `source` to one in `target`, on a port the kernel picks."""
    family = socket.AF_INET6 if ":" in dst_ip else socket.AF_INET
    with (
        target.run(lambda: _bound(family, dst_ip)) as receiver,
        source.run(lambda: _bound(family, src_ip)) as sender,
    ):
        to = receiver.getsockname()[:2]
        try:
            sender.sendto(payload, to)
            arrived = receiver.recv(len(payload) + 1) == payload
        except OSError:  # refused, unreachable, or nothing came in time
            arrived = False
        return Datagram(Endpoint(*sender.getsockname()[:2]), Endpoint(*to), payload, arrived)


@contextlib.contextmanager
def temporary_app(netns: Netns, ports: tuple[int, ...]) -> Iterator[None]:
    """Run the lab's HTTP app on `ports` inside `netns` for the length of a block; nothing for no ports.

    The app ends with us even when we are killed: its standard input does.
    """
    if not ports:
        yield
        return
    options = [text for port in ports for text in ("--port", str(port))]
    argv = inside.module("zproxy.lab.app", *options, "--until-stdin-ends")
    with inside.start(netns, argv, stdin=subprocess.PIPE, env=inside.environment()) as process:
        try:
            _wait_for_listeners(netns, process, ports)
            yield
        finally:
            process.terminate()


def _wait_for_listeners(netns: Netns, process: subprocess.Popen[bytes], ports: tuple[int, ...]) -> None:
    deadline = time.monotonic() + _APP_START_S
    while not set(ports) <= _ports_of(process.pid, netns):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ZproxyError(f"the temporary app did not start on ports {ports} in {netns.path}")
        time.sleep(0.02)


def _ports_of(pid: int, netns: Netns) -> set[int]:
    listeners = sockets.tcp_listeners(netns)
    return {entry.local.port for entry in listeners if pid in (owner.pid for owner in entry.owners)}


def _bound(family: int, ip: str) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.settimeout(_DATAGRAM_S)
    bound.bind((ip, 0))
    return bound


def _answer(command: str, body: bytes, measured: str, error: str) -> Answer:
    nowhere = Endpoint("", 0)
    fields = measured.split(" ")
    if len(fields) != 5 or not fields[3]:  # curl got no connection
        return Answer(command, 0, nowhere, nowhere, body, error or f"curl answered {measured!r}")
    status, local_port, remote_port, local_ip, remote_ip = fields
    local = Endpoint(canonical_ip(local_ip), int(local_port))
    return Answer(
        command, int(status), local, Endpoint(canonical_ip(remote_ip), int(remote_port)), body, error
    )
