"""Switch steering on and off for one pod.

Attach, in this order: its addresses, its listener, its links, and LAST its entry in zp_pods, which is what
the programs ask for first. Detach is the reverse. So no moment exists in which traffic is sent to nothing.
Then what was under way at that moment is noted, so that it goes on.
"""

import os
import socket
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import SteeringError
from zproxy.model import ports
from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions
from zproxy.net.netns import Netns
from zproxy.steering import attachment, begun, links, syscall, udp
from zproxy.steering.attachment import AT_ROOT
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.layout import ALIAS, COOKIE, INDEX, MAX_PODS, POD, POD_IP, PODSTAT, PodEntry, pack_ip
from zproxy.steering.links import Target
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, entries, interface_pin
from zproxy.steering.resolvers import aliases

LOOKUP: Final = "zp_lookup"
AT_INTERFACES: Final = tuple(name for name, hook in HOOKS.items() if hook.place is Place.INTERFACE)
DISMANTLE_S: Final = 1.0
"""How long a namespace whose last process has gone may still look alive."""


class PodSteering(NamedTuple):
    """What steering has to know of a pod."""

    netns: Netns
    """Borrowed for the call."""
    cookie: int
    name: str
    """namespace/name; like `uid` for people who read zp_pods."""
    uid: str
    ips: tuple[str, ...]
    """Every address of the pod. Its connections are sent to the first global one of their family."""
    interfaces: tuple[str, ...]
    """Where traffic from outside reaches it; never lo."""
    plaintext_listener: int
    """Descriptor of the listening socket on [::]:15006, IPv4 included, in the pod's namespace. Borrowed."""
    options: PodOptions = DEFAULT_OPTIONS
    source_ports: int = 0
    """Size of the pod's ephemeral range, 0 when it is not known."""
    cgroup: Path | None = None
    """Its own, to attach at; None leaves it to the root."""


class Pods:
    """Writes one node's pods into its maps and links. Methods block for milliseconds; one at a time."""

    __slots__ = ("_objects", "_pins")

    def __init__(self, pins: NodePins, objects: Objects) -> None:
        self._pins = pins
        self._objects = objects

    def entries(self) -> list[PodEntry]:
        """Return the pods that are switched on, by cookie."""
        return sorted(PodEntry.decode(key, value) for key, value in self._objects.elements("zp_pods"))

    def attach(self, pod: PodSteering, *, is_at_root: bool = True) -> None:
        """Switch on, or bring what is on up to date; raise SteeringError after undoing what was begun.

        A pod that was on stays on throughout, and stays on when an update of it fails.
        """
        before = self._entry(pod.cookie)
        entry = self._new_entry(pod, before, is_at_root=is_at_root)
        with ExitStack() as undo:
            self._put_addresses(pod, entry, undo)
            self._put_listener(pod, entry, undo)
            self._put_counters(pod, undo)
            self._put_links(pod, undo)
            with _saying(f"cannot switch steering on for {pod.name}"):
                syscall.map_update(self._objects.maps["zp_pods"], entry.key(), entry.value())
            if before is None:
                self._note_begun(pod, entry, undo)
            undo.pop_all()
        self._drop_addresses(pod.cookie, keep=pod.ips)
        self._drop_links(pod.cookie, keep=_pins_of(pod))

    def choose(self, cookie: int, options: PodOptions) -> None:
        """See Steering."""
        entry = self._entry(cookie)
        if entry is None:
            raise SteeringError(f"no pod with netns cookie {cookie} is steered")
        entry = entry._replace(options=options, generation=entry.generation + 1)
        with _saying(f"cannot change the options of {entry.name}"):
            syscall.map_update(self._objects.maps["zp_pods"], entry.key(), entry.value())

    def detach(self, cookie: int) -> None:
        """Switch off and remove everything of a pod. Idempotent; the namespace may be gone already."""
        before = self._entry(cookie)
        syscall.map_delete(self._objects.maps["zp_pods"], COOKIE.pack(cookie=cookie))
        self._drop_links(cookie)
        if before is not None:
            syscall.map_delete(self._objects.maps["zp_lsn"], INDEX.pack(index=before.slot))
        self._drop_addresses(cookie)
        self._drop_resolvers(cookie)
        syscall.map_delete(self._objects.maps["zp_podstat"], COOKIE.pack(cookie=cookie))
        udp.forget(self._objects, cookie)
        begun.forget(self._objects, cookie)

    def _entry(self, cookie: int) -> PodEntry | None:
        key = COOKIE.pack(cookie=cookie)
        value = syscall.map_lookup(self._objects.maps["zp_pods"], key, POD.size)
        return None if value is None else PodEntry.decode(key, value)

    def _new_entry(self, pod: PodSteering, before: PodEntry | None, *, is_at_root: bool) -> PodEntry:
        ip4, ip6 = _destination(pod.ips, 4), _destination(pod.ips, 6)
        if not ip4 and not ip6:
            raise SteeringError(f"{pod.name} has no address that its connections could be sent to")
        return PodEntry(
            cookie=pod.cookie,
            name=pod.name,
            uid=pod.uid,
            ip4=ip4,
            ip6=ip6,
            slot=self._free_slot() if before is None else before.slot,
            generation=1 if before is None else before.generation + 1,
            outbound_port=ports.OUTBOUND,
            plaintext_port=ports.INBOUND_PLAINTEXT,
            hbone_port=ports.INBOUND_HBONE,
            dns_port=ports.DNS,
            options=pod.options,
            is_twice=is_at_root and pod.cgroup is not None,
            since_ns=_since(before, is_at_root=is_at_root),
        )

    def _note_begun(self, pod: PodSteering, entry: PodEntry, undo: ExitStack) -> None:
        undo.callback(syscall.map_delete, self._objects.maps["zp_pods"], entry.key())
        with _saying(f"cannot tell which connects of {pod.name} are under way"):
            begun.note(self._objects, pod.netns, pod.cookie)

    def _free_slot(self) -> int:
        # Every pod has addresses, and one that was cut off while attaching has them before anything else.
        taken = {POD_IP.unpack(value)["slot"] for _, value in self._objects.elements("zp_podip")}
        slot = next((number for number in range(MAX_PODS) if number not in taken), None)
        if slot is None:
            raise SteeringError(f"this node steers {MAX_PODS} pods already; unenroll some")
        return slot

    def _put_addresses(self, pod: PodSteering, entry: PodEntry, undo: ExitStack) -> None:
        table = self._objects.maps["zp_podip"]
        for ip in pod.ips:
            key = pack_ip(ip)
            value = POD_IP.pack(netns=pod.cookie, slot=entry.slot, hbone_port=entry.hbone_port)
            present = syscall.map_lookup(table, key, POD_IP.size)
            if present is not None and POD_IP.unpack(present)["netns"] != pod.cookie:
                self._take_over(ip, POD_IP.unpack(present)["netns"])
                present = None
            with _saying(f"cannot record address {ip} of {pod.name}"):
                syscall.map_update(table, key, value)
            if present is None:
                undo.callback(syscall.map_delete, table, key)

    def _take_over(self, ip: str, holder: int) -> None:
        """Addresses are reused within seconds, faster than the dead are collected."""
        entry = self._entry(holder)
        if entry is not None and not self._has_died(holder):
            raise SteeringError(
                f"address {ip} is {entry.name}'s, whose network namespace (cookie {holder}) is alive; "
                "two pods of a node cannot have one address"
            )
        self.detach(holder)

    def _has_died(self, cookie: int) -> bool:
        """Whether the pod's link has lost its namespace; the kernel takes a moment to dismantle one."""
        pin = self._pins.pod(cookie) / HOOKS[LOOKUP].pin
        patience_ends = time.monotonic() + DISMANTLE_S
        while (lookup := links.describe(pin)) is not None and lookup.target:
            if time.monotonic() > patience_ends:
                return False
            time.sleep(0.01)
        return True

    def _put_listener(self, pod: PodSteering, entry: PodEntry, undo: ExitStack) -> None:
        table, key = self._objects.maps["zp_lsn"], INDEX.pack(index=entry.slot)
        value = COOKIE.pack(cookie=pod.plaintext_listener)  # a sockmap takes a descriptor and shows a cookie
        with _saying(f"cannot hand the plaintext listener of {pod.name} to the kernel"):
            before = syscall.map_lookup(table, key, COOKIE.size)
            syscall.map_update(table, key, value)
        if before is None:
            undo.callback(syscall.map_delete, table, key)

    def _put_counters(self, pod: PodSteering, undo: ExitStack) -> None:
        """Counters begin at zero when the pod is enrolled, and not when its entry is brought up to date."""
        table, key = self._objects.maps["zp_podstat"], COOKIE.pack(cookie=pod.cookie)
        if syscall.map_lookup(table, key, PODSTAT.size) is not None:
            return
        epoch = time.monotonic_ns() & 0xFFFFFFFF | 1  # not that of an earlier enrolment, and not 0
        with _saying(f"cannot make the counters of {pod.name}"):
            syscall.map_update(table, key, PODSTAT.pack(ports=pod.source_ports, epoch=epoch))
        undo.callback(syscall.map_delete, table, key)

    def _put_links(self, pod: PodSteering, undo: ExitStack) -> None:
        directory = self._pins.pod(pod.cookie)
        with _saying(f"cannot make {directory}"):
            directory.mkdir(mode=0o700, exist_ok=True)
        undo.callback(_remove_if_empty, self._pins, pod.cookie)
        links.follow(directory, self._interface_pins_by_index(pod))
        if pod.cgroup is not None:
            self._put_cgroup_links(pod, pod.cgroup, undo)
        self._put_link(pod, HOOKS[LOOKUP].pin, LOOKUP, self._lookup_target(pod), undo)
        for interface in pod.interfaces:
            for program in AT_INTERFACES:
                target = self._interface_target(pod, program, interface)
                self._put_link(pod, interface_pin(HOOKS[program].pin, interface), program, target, undo)

    def _put_cgroup_links(self, pod: PodSteering, cgroup: Path, undo: ExitStack) -> None:
        for name, hook in AT_ROOT.items():
            pin = self._pins.pod(pod.cookie) / hook.pin
            if attachment.ensure(pin, hook, self._objects.programs[name], cgroup):
                undo.callback(links.release, pin)

    def _interface_pins_by_index(self, pod: PodSteering) -> dict[str, int]:
        found = {
            interface_pin(HOOKS[program].pin, interface): self._interface_target(pod, program, interface)
            for interface in pod.interfaces
            for program in AT_INTERFACES
        }
        return {pin: target.number for pin, target in found.items()}

    def _put_link(self, pod: PodSteering, pin: str, program: str, target: Target, undo: ExitStack) -> None:
        path = self._pins.pod(pod.cookie) / pin
        if links.ensure(path, HOOKS[program], self._objects.programs[program], target):
            undo.callback(links.release, path)

    def _lookup_target(self, pod: PodSteering) -> Target:
        program, hook = self._objects.programs[LOOKUP], HOOKS[LOOKUP]
        return Target(
            number=pod.netns.key[1],
            name=f"the network namespace of {pod.name}",
            attach=lambda: syscall.link_create(program.fd, pod.netns.fd, hook.attach_type),
        )

    def _interface_target(self, pod: PodSteering, name: str, interface: str) -> Target:
        program, hook = self._objects.programs[name], HOOKS[name]
        try:
            index = pod.netns.run(lambda: socket.if_nametoindex(interface))
        except OSError as error:
            raise SteeringError(f"{pod.name} has no interface {interface}") from error
        return Target(
            number=index,
            name=f"{interface} of {pod.name}",
            # An ifindex means an interface of the namespace that the call is made in.
            attach=lambda: pod.netns.run(lambda: syscall.link_create(program.fd, index, hook.attach_type)),
        )

    def _drop_links(self, cookie: int, keep: Set[str] = frozenset()) -> None:
        for path in entries(self._pins.pod(cookie)):
            if path.name not in keep:
                links.release(path)
        _remove_if_empty(self._pins, cookie)

    def _drop_resolvers(self, cookie: int) -> None:
        """Aliases are made by the programs, in fixed places: no need to look at those of other pods."""
        table = self._objects.maps["zp_resolver"]
        for alias in aliases():
            syscall.map_delete(table, ALIAS.pack(netns=cookie, ip=pack_ip(alias)))

    def _drop_addresses(self, cookie: int, keep: tuple[str, ...] = ()) -> None:
        kept = {pack_ip(ip) for ip in keep}
        for key, value in list(self._objects.elements("zp_podip")):
            if POD_IP.unpack(value)["netns"] == cookie and key not in kept:
                syscall.map_delete(self._objects.maps["zp_podip"], key)


def _since(before: PodEntry | None, *, is_at_root: bool) -> int:
    """A process outside the pod's cgroup is seen at the root alone; without that its connects are told from
    those that began earlier only by what `begun` finds.
    """
    if before is not None:
        return before.since_ns
    return time.monotonic_ns() if is_at_root else 0


def _pins_of(pod: PodSteering) -> set[str]:
    at_interfaces = {
        interface_pin(HOOKS[name].pin, each) for name in AT_INTERFACES for each in pod.interfaces
    }
    at_cgroup = {hook.pin for hook in AT_ROOT.values()} if pod.cgroup is not None else set()
    return {HOOKS[LOOKUP].pin} | at_interfaces | at_cgroup


def _destination(ips: tuple[str, ...], version: int) -> str:
    addresses = [ip_address(ip) for ip in ips]
    return next((str(a) for a in addresses if a.version == version and not a.is_link_local), "")


def _remove_if_empty(pins: NodePins, cookie: int) -> None:
    directory = pins.pod(cookie)
    if directory.exists() and not entries(directory):
        directory.rmdir()


@contextmanager
def _saying(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SteeringError(f"{what}: {os.strerror(error.errno or 0)}") from error
