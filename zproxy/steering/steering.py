"""The steering of one node: open it, exempt the proxy's sockets, switch pods on and off, read what it did.

Everything that decides lives in the kernel and is pinned; this object holds descriptors only. When it goes,
enrolled pods stay steered: towards closed listeners, so they are refused and NEVER in the clear.
"""

import os
from contextlib import suppress
from pathlib import Path

from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.model.pod import PodOptions
from zproxy.steering import cgroups, links, syscall
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.exemption import Exemption
from zproxy.steering.hooks import HOOKS, Hook, Place
from zproxy.steering.inspect_pod import Inspector, NodeFacts
from zproxy.steering.install import install
from zproxy.steering.layout import COOKIE, INDEX, REASONS, ConnEntry, PodEntry
from zproxy.steering.links import Program, Target
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, ensure_bpffs, entries, remove_tree
from zproxy.steering.pods import Pods, PodSteering

__all__ = ["PodEntry", "PodSteering", "Steering", "remove"]


class Steering:
    """One node's steering. `exempt` is for any thread; the other methods block for milliseconds."""

    def __init__(self, pins: NodePins, objects: Objects, places: dict[Place, Path]) -> None:
        """Take over `objects`; use `Steering.open`."""
        self._objects = objects
        self._node_pins = pins
        self._places = places
        self.inspector = Inspector(pins, objects)
        """Looks at what the kernel has, for who compares it with what is wanted."""
        self._pods = Pods(pins, objects)
        self._cpus = possible_cpus()
        self.exempt = Exemption(objects.maps["zp_exempt"])
        """Call it with the descriptor of a socket that the proxy will connect; costs a microsecond or two."""

    @classmethod
    def open(cls, node: str, *, pin_root: Path = PIN_ROOT, cgroup: Path | None = None) -> "Steering":
        """Adopt what is pinned for `node`, or compile and load it, and attach what serves all pods.

        `cgroup` stands in for the root of the hierarchy. Blocks for a second at most, for some milliseconds
        when it adopts. Raise RequirementError when the machine lacks something, else SteeringError.
        """
        if os.geteuid() != 0:
            raise RequirementError("steering needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN); use sudo")
        root = cgroups.root_cgroup()
        own = cgroups.own_cgroup(root)
        ensure_bpffs(pin_root)
        pins = NodePins(node, pin_root)
        try:
            objects = install(pins)
        except OSError as error:
            raise SteeringError(f"cannot use the pins in {pins.directory}: {error}") from error
        try:
            places = {Place.ROOT: cgroup or root, Place.OWN: own}
            _attach_hooks(pins, objects, places)
            return cls(pins, objects, places)
        except BaseException:
            objects.close()
            raise

    def attach(self, pod: PodSteering) -> None:
        """Switch steering on for a pod whose listeners accept already, or bring it up to date.

        Undoes itself and raises SteeringError on failure. Connections that exist are left alone.
        """
        self._pods.attach(pod)

    def choose(self, cookie: int, options: PodOptions) -> None:
        """Give a pod that is on other options, in one step; raise SteeringError when it is not on."""
        self._pods.choose(cookie, options)

    def detach(self, cookie: int) -> None:
        """Switch steering off for a pod; idempotent, and fine when its namespace has gone."""
        self._pods.detach(cookie)

    def node_facts(self) -> NodeFacts:
        """Return what the kernel has of that which serves all pods."""
        return self.inspector.node(os.stat(self._places[Place.ROOT]).st_ino)

    def mend(self) -> None:
        """Pin and attach again what of that has gone; raise SteeringError."""
        pins = self._node_pins
        try:
            for directory in (pins.maps, pins.programs, pins.links, pins.pods):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, fd in self._objects.maps.items():
                _pin_again(fd, pins.maps / name)
            for name, program in self._objects.programs.items():
                _pin_again(program.fd, pins.programs / name)
        except OSError as error:
            raise SteeringError(f"cannot pin again in {pins.directory}: {error}") from error
        _attach_hooks(pins, self._objects, self._places)

    def pods(self) -> list[PodEntry]:
        """Return the pods that the kernel steers now, by cookie."""
        return self._pods.entries()

    def connections(self) -> list[ConnEntry]:
        """Return the open steered client connections of all pods, oldest first."""
        found = (ConnEntry.decode(key, value) for key, value in self._objects.elements("zp_conn"))
        return sorted(found, key=lambda connection: connection.started_ns)

    def stats(self) -> dict[str, int]:
        """Return how often the programs decided what, by reason, since the maps were made."""
        return {name: self._count(number) for number, name in enumerate(REASONS)}

    def close(self) -> None:
        """Drop the descriptors and leave everything pinned and attached; idempotent."""
        self._objects.close()

    def _count(self, number: int) -> int:
        size = COOKIE.size * self._cpus
        raw = syscall.map_lookup(self._objects.maps["zp_stats"], INDEX.pack(index=number), size) or bytes(
            size
        )
        return sum(COOKIE.unpack(raw[at : at + 8])["cookie"] for at in range(0, size, 8))


def remove(node: str, pin_root: Path = PIN_ROOT) -> list[str]:
    """Take down everything of a node from its pins alone, with or without a daemon; return what went.

    Its pods' traffic is no longer steered from the first step on. Other nodes are not touched.
    """
    pins = NodePins(node, pin_root)
    if strangers := pins.strangers():
        raise SteeringError(f"{strangers[0]} is not zproxy's, so nothing in {pins.directory} is touched")
    gone = []
    try:
        _switch_off(pins.maps / "zp_pods")
        for directory in (*pins.pod_directories(), pins.links):
            gone += [path for path in entries(directory) if links.release(path)]
        gone += remove_tree(pins.directory)
    except OSError as error:
        raise SteeringError(f"cannot remove {pins.directory}: {error}") from error
    with suppress(OSError):  # other nodes have pins there, or nobody ever had
        pin_root.rmdir()
    return [str(path) for path in gone]


def _switch_off(pods: Path) -> None:
    try:
        fd = syscall.obj_get(pods)
    except OSError:
        return  # half-written or damaged: the links go next
    try:
        for key in list(syscall.map_keys(fd, COOKIE.size)):
            syscall.map_delete(fd, key)
    finally:
        os.close(fd)


def _pin_again(fd: int, path: Path) -> None:
    """What somebody else pinned there meanwhile stays, and is reported."""
    with suppress(FileExistsError):
        syscall.obj_pin(fd, path)


def _attach_hooks(pins: NodePins, objects: Objects, places: dict[Place, Path]) -> None:
    """Attach what serves all pods. One that hangs elsewhere (the daemon has changed cgroups) is made anew."""
    for name, hook in HOOKS.items():
        if hook.place in places:
            _attach_hook(pins.links / hook.pin, hook, objects.programs[name], places[hook.place])


def _attach_hook(pin: Path, hook: Hook, program: Program, cgroup: Path) -> None:
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SteeringError(f"cannot open the cgroup {cgroup}: {os.strerror(error.errno or 0)}") from error
    try:
        target = Target(
            number=os.fstat(fd).st_ino,
            name=f"the cgroup {cgroup}",
            attach=lambda: syscall.link_create(program.fd, fd, hook.attach_type),
        )
        links.ensure(pin, hook, program, target)
    finally:
        os.close(fd)
