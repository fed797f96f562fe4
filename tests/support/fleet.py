"""Many pods at once: namespaces whose veths meet on a bridge in one more namespace, made in a few batches.

A pair of `netns.pair` costs some ten processes. Here everything of one kind is one process, so that 200 pods
take seconds.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, batch, namespace
from zproxy.model.workload import Workload
from zproxy.net.netns import NAMED, Netns


class Fleet(NamedTuple):
    """`pods` reach each other and `peer`, a machine that is no pod."""

    peer: Namespace
    pods: list[Namespace]

    def workloads(self, node: str) -> list[Workload]:
        """Return the mesh in which every pod is on `node`: demo/pod-0, demo/pod-1 ..."""
        return [workload(f"demo/pod-{at}", *pod.ips, node=node) for at, pod in enumerate(self.pods)]


@contextmanager
def fleet(count: int) -> Iterator[Fleet]:
    """Make `count` pods and the peer for the block."""
    names = [f"{PREFIX}fleet-{number}" for number in range(count)]
    with ExitStack() as stack:
        peer = stack.enter_context(namespace("fleet-peer"))
        stack.callback(_delete, names)
        _batch(f"netns add {name}" for name in names)
        batch(peer.name, list(_bridge(names)))
        peer.ip4, peer.ip6, peer.interface = _ip4(0), _ip6(0), "br0"
        pods = []
        for number, name in enumerate(names, start=1):
            handle = stack.enter_context(Netns.named(name))
            pods.append(Namespace(name, handle, ip4=_ip4(number), ip6=_ip6(number)))
            batch(name, _addressed(pods[-1], peer))
        yield Fleet(peer, pods)


def _bridge(names: Sequence[str]) -> Iterator[str]:
    yield "link add br0 type bridge"
    yield "link set br0 addrgenmode none"
    yield from (f"addr add {address} dev br0 nodad" for address in (f"{_ip4(0)}/16", f"{_ip6(0)}/64"))
    yield "link set br0 up"
    for number, name in enumerate(names):
        yield f"link add v{number} type veth peer name eth0 netns {name}"
        yield f"link set v{number} addrgenmode none master br0 up"


def _addressed(pod: Namespace, peer: Namespace) -> list[str]:
    return [
        "link set lo up",
        "link set eth0 addrgenmode none",
        "link set eth0 up",
        f"addr add {pod.ip4}/16 dev eth0",
        f"addr add {pod.ip6}/64 dev eth0 nodad",
        f"route add default via {peer.ip4}",
        f"route add default via {peer.ip6}",
    ]


def _delete(names: Sequence[str]) -> None:
    _batch(f"netns delete {name}" for name in names if (NAMED / name).exists())


def _batch(lines: Iterator[str]) -> None:
    command = ["ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"ip -batch: {done.stderr.strip()}")


def _ip4(number: int) -> str:
    return f"10.78.{number // 250}.{number % 250 + 1}"


def _ip6(number: int) -> str:
    return f"fd78::{number + 1:x}"
