"""What the pinned maps of a daemon say about connections, read beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.netns import Namespace
from tests.support.nodes import Node, wait_for
from zproxy.model.addr import Endpoint
from zproxy.steering import syscall
from zproxy.steering.layout import COOKIE, PODSTAT, ConnEntry
from zproxy.steering.objects import Objects, open_maps
from zproxy.steering.pins import NodePins

MOMENTARY = ("zp_tuple", "zp_in")
"""What holds something only while a connection is on its way to the straw."""


class Counters(NamedTuple):
    """Of a pod, as zp_podstat has them."""

    open: int
    opened: int
    refused: int
    inbound: int

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(*(mine - its for mine, its in zip(self, other, strict=True)))


def dialled(node: Node, pod: Namespace) -> dict[Endpoint, Endpoint]:
    """Return what apps of the pod hold open and have dialled, by the address that they dialled from."""
    cookie = pod.netns.cookie()
    with _opened(node) as objects:
        found = [ConnEntry.decode(key, value) for key, value in objects.elements("zp_conn")]
    return {each.source: each.original for each in found if each.netns == cookie and each.source}


def counters(node: Node, pod: Namespace) -> Counters:
    """Return the pod's counters."""
    with _opened(node) as objects:
        key = COOKIE.pack(cookie=pod.netns.cookie())
        raw = syscall.map_lookup(objects.maps["zp_podstat"], key, PODSTAT.size)
    assert raw is not None, f"{pod.name} is not enrolled"
    return Counters(**{name: PODSTAT.unpack(raw)[name] for name in Counters._fields})


def settled(node: Node, pod: Namespace) -> Counters:
    """Wait until the pod's apps hold nothing and nothing is on its way, and return the counters."""

    def is_settled() -> bool:
        with _opened(node) as objects:
            on_the_way = [key for name in MOMENTARY for key, _ in objects.elements(name)]
        return not on_the_way and not dialled(node, pod) and not counters(node, pod).open

    wait_for(is_settled, f"the maps hold nothing of {pod.name} any more")
    return counters(node, pod)


@contextmanager
def _opened(node: Node) -> Iterator[Objects]:
    objects = open_maps(NodePins(node.name))
    try:
        yield objects
    finally:
        objects.close()
