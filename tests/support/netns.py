"""Throw-away network namespaces for tests: named zpt-PID-N-LABEL, joined by veth, always removed.

The builder calls `ip` in batches: a pair costs some ten milliseconds. IPv6 addresses are added without
duplicate address detection, because a tentative address refuses bind() for a second. No link-local address
is generated, so nothing that a test did not cause goes over the wire.
"""

import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zproxy.net.netns import NAMED, Netns

PREFIX = f"zpt-{os.getpid()}-"
_numbers = itertools.count(1)

T = TypeVar("T")
Socket = socket.socket


@dataclass(slots=True)
class Namespace:
    """One namespace. `ip4` and `ip6` are the addresses on `interface`, "" when it has none of the family."""

    name: str
    netns: Netns
    interface: str = "eth0"
    ip4: str = ""
    ip6: str = ""

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses it has."""
        return tuple(ip for ip in (self.ip4, self.ip6) if ip)

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` inside, see `Netns.run`."""
        return self.netns.run(work)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0) -> Socket:
        """Open a socket that belongs to this namespace; blocking calls on it give up after 5 s."""
        made = self.run(lambda: socket.socket(family, kind, proto))
        made.settimeout(5)
        return made

    def listen(self, port: int, ip: str = "::", backlog: int = 64) -> Socket:
        """Open a TCP listener inside; `::` takes both families."""
        listener = self.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((ip, port))
        listener.listen(backlog)
        return listener

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside through `ip netns exec`; raise CalledProcessError when it fails."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )

    def sysctl(self, key: str, value: str) -> None:
        """Set net.KEY (dotted) inside; /proc/sys/net shows the namespace of the thread that opens it."""
        path = Path("/proc/sys/net", *key.split("."))
        self.run(lambda: path.write_text(value))


@contextmanager
def namespace(label: str = "ns") -> Iterator[Namespace]:
    """Make a namespace with `lo` up and nothing else."""
    name = f"{PREFIX}{next(_numbers)}-{label}"
    try:  # also around what makes it: an interrupt may meet us there
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        with Netns.named(name) as handle:
            yield Namespace(name, handle)
    finally:
        remove(name)


@contextmanager
def pair(
    left: str = "client", right: str = "server", *, v4: bool = True, v6: bool = True
) -> Iterator[tuple[Namespace, Namespace]]:
    """Make two namespaces joined by a veth called eth0 on both sides, each the other's default route."""
    with ExitStack() as stack:
        sides = (stack.enter_context(namespace(left)), stack.enter_context(namespace(right)))
        join(*sides, v4=v4, v6=v6)
        yield sides


def join(left: Namespace, right: Namespace, *, v4: bool = True, v6: bool = True) -> None:
    """Put a veth between two namespaces with addresses of a subnet that no other pair of this process has."""
    number = next(_numbers)
    ip("link", "add", "eth0", "netns", left.name, "type", "veth", "peer", "name", "eth0", "netns", right.name)
    for host, side in enumerate((left, right), start=1):
        lines = ["link set eth0 addrgenmode none", "link set eth0 up"]
        if v4:
            side.ip4 = _ip4(number, host)
            lines += [f"addr add {side.ip4}/24 dev eth0", f"route add default via {_ip4(number, 3 - host)}"]
        if v6:
            side.ip6 = _ip6(number, host)
            lines += [
                f"addr add {side.ip6}/64 dev eth0 nodad",
                f"route add default via {_ip6(number, 3 - host)}",
            ]
        batch(side.name, lines)


def ip(*arguments: str) -> None:
    """Run iproute2's ip; its own message is the exception's."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def batch(name: str, lines: list[str]) -> None:
    """Run several ip commands inside the namespace `name` in one process."""
    command = ["ip", "-n", name, "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip -n {name} -batch: {done.stderr.strip()}")


def remove(name: str) -> None:
    """Delete a namespace by name; one that has gone already is fine."""
    if (NAMED / name).exists():
        ip("netns", "delete", name)


def leftovers() -> list[str]:
    """Return the names of this process's test namespaces that still exist."""
    return sorted(path.name for path in NAMED.glob(f"{PREFIX}*"))


def _ip4(number: int, host: int) -> str:
    return f"10.77.{number % 250}.{host}"


def _ip6(number: int, host: int) -> str:
    return f"fd77:{number:x}::{host}"
