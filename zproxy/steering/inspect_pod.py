"""What the kernel says about one node's steering and about one pod's: facts for who compares them.

Nothing is remembered and nothing changed. A daemon looks through its own descriptors, so that it notices when
somebody exchanged the pins; a command without a daemon looks through what it found pinned.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from zproxy.errors import SteeringError
from zproxy.model.attach import Attach
from zproxy.net.netlink import Interface
from zproxy.net.netns import Netns
from zproxy.steering import attachment, links, syscall
from zproxy.steering.hooks import HOOKS, Hook, Place
from zproxy.steering.info import LinkInfo, map_info, prog_info
from zproxy.steering.layout import COOKIE, INDEX, POD, POD_IP, PODSTAT, PodEntry, pack_ip, unpack_ip
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, entries, interface_pin


class LinkFact(NamedTuple):
    """One link that there should be."""

    pin: str
    program: str
    where: str
    """For people: an interface, or the kind of place."""
    target: int
    """The number that the kernel should report for the place; 0 when any will do."""
    found: LinkInfo | None
    """None when nothing is pinned."""
    attached: tuple[int, ...] = ()
    """Ids of the programs that run there, in order."""


class SteeringFacts(NamedTuple):
    """What the maps and links hold for one pod."""

    entry: PodEntry | None
    slots: Mapping[str, int]
    """Address → the slot that zp_podip gives it, for this pod's."""
    listener: int
    """Cookie of the socket in the pod's slot of zp_lsn, 0 when it is empty."""
    has_counters: bool
    links: tuple[LinkFact, ...]
    strays: tuple[str, ...]
    """Pins of links at places that the pod no longer has."""


class ObjectFact(NamedTuple):
    """One map or program: the id that is in use, and the one that is pinned (0 when nothing is)."""

    name: str
    id: int
    pinned: int
    tag: str = ""


class NodeFacts(NamedTuple):
    """What serves all pods."""

    maps: tuple[ObjectFact, ...]
    programs: tuple[ObjectFact, ...]
    links: tuple[LinkFact, ...]


class Inspector:
    """Looks at one node's objects. Methods block for a millisecond or so; any thread may call them."""

    __slots__ = ("_objects", "_pins")

    def __init__(self, pins: NodePins, objects: Objects) -> None:
        self._pins = pins
        self._objects = objects

    def programs(self) -> dict[str, int]:
        """Return the id of the program that each link of its name should run."""
        return {name: program.id for name, program in self._objects.programs.items()}

    def entries(self) -> list[PodEntry]:
        """Return the pods that the kernel steers, by cookie."""
        return sorted(PodEntry.decode(key, value) for key, value in self._objects.elements("zp_pods"))

    def claims(self) -> dict[int, list[str]]:
        """Return the addresses in zp_podip, by the cookie of the pod that they belong to."""
        found: dict[int, list[str]] = {}
        for key, value in self._objects.elements("zp_podip"):
            found.setdefault(POD_IP.unpack(value)["netns"], []).append(unpack_ip(key))
        return found

    def traces(self) -> set[int]:
        """Return the cookies of all pods of which there is anything in maps or pins."""
        found = {int(path.name) for path in self._pins.pod_directories()} | self.claims().keys()
        for name in ("zp_pods", "zp_podstat"):
            found |= {COOKIE.unpack(key)["cookie"] for key, _ in self._objects.elements(name)}
        return found

    def attach_mode(self) -> Attach:
        """Return where the pins say that the connect programs hang."""
        of_pods = [int(path.name) for path in self._pins.pod_directories()]
        is_at_pods = any(attachment.has_pod(self._pins, cookie) for cookie in of_pods)
        if not attachment.has_root(self._pins):
            return Attach.POD if is_at_pods else Attach.ROOT
        return Attach.BOTH if is_at_pods else Attach.ROOT

    def probes(self) -> str:
        """Return how probes are known, as the pins and maps say."""
        kubelet = links.describe(self._pins.links / HOOKS[attachment.KUBELET].pin)
        if kubelet is not None and kubelet.target:
            return f"cgroup: what kubelet's cgroup (id {kubelet.target}) dials reaches apps in the clear"
        ips = sorted(unpack_ip(key) for key, _ in self._objects.elements("zp_nodeip"))
        if ips:
            return f"node-ip: what comes from {', '.join(ips)} reaches apps in the clear"
        return "none: probes are as any other client"

    def node(self, root: int, attach: Attach | None = None) -> NodeFacts:
        """Describe what serves all pods; `root` is the id of the cgroup that hooks at the root hang on.

        `attach` is what was asked for; the pins tell when nobody knows.
        """
        is_at_root = (attach or self.attach_mode()) is not Attach.POD
        maps = tuple(
            ObjectFact(name, map_info(fd).id, _pinned_id(self._pins.maps / name, is_map=True))
            for name, fd in self._objects.maps.items()
        )
        programs = []
        for name, program in self._objects.programs.items():
            pinned = _pinned_id(self._pins.programs / name, is_map=False)
            programs.append(ObjectFact(name, program.id, pinned, prog_info(program.fd).tag))
        return NodeFacts(maps, tuple(programs), tuple(self._node_links(root, is_at_root=is_at_root)))

    def pod(
        self, cookie: int, netns: Netns, interfaces: Iterable[Interface], ips: Iterable[str]
    ) -> SteeringFacts:
        """Describe one pod, whose namespace has these addresses, and interfaces that carry them."""
        key = COOKIE.pack(cookie=cookie)
        value = syscall.map_lookup(self._objects.maps["zp_pods"], key, POD.size)
        entry = None if value is None else PodEntry.decode(key, value)
        listener = None
        if entry is not None:
            slot = INDEX.pack(index=entry.slot)
            listener = syscall.map_lookup(self._objects.maps["zp_lsn"], slot, COOKIE.size)
        counters = syscall.map_lookup(self._objects.maps["zp_podstat"], key, PODSTAT.size)
        wanted = tuple(self._pod_links(cookie, netns, tuple(interfaces)))
        present = {path.name for path in entries(self._pins.pod(cookie))}
        return SteeringFacts(
            entry=entry,
            slots=dict(self._slots(cookie, ips)),
            listener=COOKIE.unpack(listener)["cookie"] if listener else 0,
            has_counters=counters is not None,
            links=wanted,
            strays=tuple(sorted(present - {link.pin for link in wanted})),
        )

    def _slots(self, cookie: int, ips: Iterable[str]) -> Iterator[tuple[str, int]]:
        for ip in ips:
            value = syscall.map_lookup(self._objects.maps["zp_podip"], pack_ip(ip), POD_IP.size)
            if value is not None and POD_IP.unpack(value)["netns"] == cookie:
                yield ip, POD_IP.unpack(value)["slot"]

    def _node_links(self, root: int, *, is_at_root: bool) -> Iterator[LinkFact]:
        for name, hook in HOOKS.items():
            pin = hook.pin
            if hook.place is Place.ROOT:
                if not is_at_root and not hook.serves_daemon:
                    continue
                pin = pin if is_at_root else f"{pin}-{attachment.OWN}"
            elif hook.place not in (Place.OWN, Place.KUBELET):
                continue
            found = links.describe(self._pins.links / pin)
            if found is None and hook.place is Place.KUBELET:
                continue  # nobody wants kubelet's connections noted
            target = root if hook.place is Place.ROOT and is_at_root else 0
            yield LinkFact(pin, name, hook.place.value, target, found)

    def _pod_links(self, cookie: int, netns: Netns, found: tuple[Interface, ...]) -> Iterator[LinkFact]:
        pinned = {path.name for path in entries(self._pins.pod(cookie))}
        is_at_cgroup = any(hook.pin in pinned for hook in attachment.AT_ROOT.values())
        for name, hook in HOOKS.items():
            if hook.place is Place.ROOT:
                if is_at_cgroup:
                    link = _described(self._pins, cookie, hook.pin)
                    running = (link.prog_id,) if link is not None and link.target else ()
                    yield self._pod_link(cookie, hook.pin, name, "its own cgroup", 0, running)
            elif hook.place is Place.NETNS:
                attached = _attached(netns.fd, hook)
                yield self._pod_link(cookie, hook.pin, name, "its namespace", netns.key[1], attached)
            elif hook.place is Place.INTERFACE:
                for each in found:
                    pin = interface_pin(hook.pin, each.name)
                    attached = netns.run(lambda each=each, hook=hook: _attached(each.ifindex, hook))  # type: ignore[misc]  # mypy infers no lambda with defaults
                    yield self._pod_link(cookie, pin, name, each.name, each.ifindex, attached)

    def _pod_link(
        self, cookie: int, pin: str, program: str, where: str, target: int, attached: tuple[int, ...]
    ) -> LinkFact:
        return LinkFact(pin, program, where, target, _described(self._pins, cookie, pin), attached)


def _described(pins: NodePins, cookie: int, pin: str) -> LinkInfo | None:
    """What is pinned and no link is as bad as nothing."""
    try:
        return links.describe(pins.pod(cookie) / pin)
    except SteeringError:
        return None


def _attached(target: int, hook: Hook) -> tuple[int, ...]:
    try:
        return tuple(syscall.prog_query(target, hook.attach_type)[0])
    except OSError:
        return ()  # an interface that has just gone


def _pinned_id(path: os.PathLike[str], *, is_map: bool) -> int:
    try:
        fd = syscall.obj_get(path)
    except OSError:
        return 0
    try:
        return map_info(fd).id if is_map else prog_info(fd).id
    except OSError:
        return 0
    finally:
        os.close(fd)
