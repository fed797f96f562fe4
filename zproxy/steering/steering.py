"""The steering of one node: open it, exempt the proxy's sockets, switch pods on and off, read what it did.

Everything that decides lives in the kernel and is pinned; this object holds descriptors only. When it goes,
enrolled pods stay steered: towards closed listeners, so they are refused and NEVER in the clear.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.model.addr import Endpoint
from zproxy.model.attach import DEFAULT_PROBES, Attach, ProbeMode, ProbeWish
from zproxy.model.pod import PodOptions
from zproxy.net.netns import Netns
from zproxy.steering import attachment, cgroups, kubelet, links, preflight, syscall
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.exemption import Exemption
from zproxy.steering.former import Former
from zproxy.steering.heart import Heart
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.inspect_pod import Inspector, NodeFacts
from zproxy.steering.install import install
from zproxy.steering.kubelet import ProbeChoice
from zproxy.steering.layout import COOKIE, ENABLED, INDEX, IP, REASONS, ConnEntry, PodEntry, pack_ip
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, ensure_bpffs, entries, remove_tree
from zproxy.steering.pod_cgroups import PodCgroup, Search
from zproxy.steering.pods import Pods, PodSteering
from zproxy.steering.resolvers import Resolvers

_log = logging.getLogger(__name__)

__all__ = ["PodEntry", "PodSteering", "Steering", "remove"]


class Places(NamedTuple):
    """The cgroups of a node."""

    top: Path
    """Where what is for the root hangs: the root, or what stands in for it."""
    root: Path
    own: Path


class Steering:
    """One node's steering. `exempt` is for any thread; the other methods block for milliseconds."""

    is_external = False
    """Whether others bring the pods' traffic to their straws."""

    def __init__(
        self, pins: NodePins, objects: Objects, attach: Attach, places: "Places", probes: ProbeChoice
    ) -> None:
        """Take over `objects`; use `Steering.open`."""
        self._pins = pins
        self._objects = objects
        self.inspector = Inspector(pins, objects)
        """Looks at what the kernel has, for who compares it with what is wanted."""
        self._pods = Pods(pins, objects)
        self._former = Former(pins)
        self._cpus = possible_cpus()
        self._places = places
        self.attach_mode = attach
        self.probes = probes
        self.exempt = Exemption(objects.maps["zp_exempt"])
        """Call it with the descriptor of a socket that the proxy will connect; costs a microsecond or two."""
        self.heart = Heart(objects.maps["zp_heart"])

    @classmethod
    def open(
        cls,
        node: str,
        *,
        pin_root: Path = PIN_ROOT,
        cgroup: Path | None = None,
        cgroup_root: Path | None = None,
        attach: Attach = Attach.BOTH,
        probes: ProbeWish = DEFAULT_PROBES,
    ) -> "Steering":
        """Adopt what is pinned for `node`, or compile and load it, and attach what serves all pods.

        `cgroup` stands in for the root of the hierarchy where programs are attached, `cgroup_root` for what
        all paths begin at as well: the root of a node that is itself a container. Blocks for a second at
        most, for some milliseconds when it adopts. Raise RequirementError when the machine lacks something,
        ConfigError for a wish that cannot be had, else SteeringError; an exclusive attachment is found before
        anything is changed.
        """
        if os.geteuid() != 0:
            raise RequirementError("steering needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN); use sudo")
        root = cgroups.root_cgroup() if cgroup_root is None else cgroups.given_root(cgroup_root)
        places = Places(cgroup or root, root, cgroups.own_cgroup(root))
        chosen = kubelet.choose(probes, root)
        _refuse_exclusive(attach, places)
        ensure_bpffs(pin_root)
        pins = NodePins(node, pin_root)
        try:
            objects = install(pins)
        except OSError as error:
            raise SteeringError(f"cannot use the pins in {pins.directory}: {error}") from error
        try:
            opened = cls(pins, objects, attach, places, chosen)
            opened._attach_node()
            _write_node_ips(objects, chosen.node_ips)
            opened._leave_root()
            opened._former.collect()
        except BaseException:
            objects.close()
            raise
        _tell(opened)
        return opened

    def examine(self, name: str, netns: Netns, pid: int | None, cgroup: str | None) -> PodCgroup:
        """Look whether a pod can be steered, and return which cgroup is its own; changes nothing.

        `pid` is a process in it and `cgroup` its cgroup, where somebody said so. Raise SteeringError when
        another mesh or daemon has the pod, or when `--attach pod` has nothing to attach to.
        """
        found = self._cgroup_of(netns, pid, cgroup)
        if self.attach_mode is Attach.POD and found.path is None:
            raise SteeringError(
                f"{name} has no cgroup of its own in cgroup v2 ({found.why}), and this daemon attaches at "
                "pods' cgroups only; name it with --cgroup PATH, or run the daemon with --attach both"
            )
        where = [] if self.attach_mode is Attach.POD else [self._places.top]
        if found.path is not None:
            where = [*preflight.with_ancestors(found.path, self._places.root)]
        preflight.refuse_other_owners(name, netns, netns.cookie(), where, self._pins)
        return found

    def attach(self, pod: PodSteering) -> None:
        """Switch steering on for a pod whose listeners accept already, or bring it up to date.

        Undoes itself and raises SteeringError on failure. Connections that exist are left alone.
        """
        self._pods.attach(pod, is_at_root=self.attach_mode is not Attach.POD)
        self._former.release(pod.cookie)
        self._leave_root()
        if pod.cgroup is not None:
            self._tell_overtakers(pod.name, pod.cgroup)

    def choose(self, cookie: int, options: PodOptions) -> None:
        """Give a pod that is on other options, in one step; raise SteeringError when it is not on."""
        self._pods.choose(cookie, options)

    def detach(self, cookie: int) -> None:
        """Switch steering off for a pod; idempotent, and fine when its namespace has gone."""
        self._pods.detach(cookie)
        self._former.release(cookie)
        self._leave_root()

    def find_resolver(self, cookie: int, alias: str) -> Endpoint | None:
        """Return the resolver that `alias` stands for in the pod `cookie`; from any thread, 2 us."""
        return Resolvers(self._objects.maps["zp_resolver"], cookie).find(alias)

    def node_facts(self) -> NodeFacts:
        """Return what the kernel has of that which serves all pods."""
        return self.inspector.node(os.stat(self._places.top).st_ino, self.attach_mode)

    def mend(self) -> None:
        """Pin and attach again what of that has gone; raise SteeringError."""
        pins = self._pins
        try:
            for directory in (pins.maps, pins.programs, pins.links, pins.pods):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, fd in self._objects.maps.items():
                _pin_again(fd, pins.maps / name)
            for name, program in self._objects.programs.items():
                _pin_again(program.fd, pins.programs / name)
        except OSError as error:
            raise SteeringError(f"cannot pin again in {pins.directory}: {error}") from error
        self._attach_node()

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

    def _cgroup_of(self, netns: Netns, pid: int | None, cgroup: str | None) -> PodCgroup:
        if self.attach_mode is Attach.ROOT:
            return PodCgroup(None, "the daemon attaches at the root alone")
        search = Search(netns, self._places.root, self._places.own)
        if cgroup is not None:
            return search.given(cgroup)
        return search.by_processes() if pid is None else search.of_process(pid)

    def _attach_node(self) -> None:
        """Attach what serves all pods, or see that it is."""
        places = self._places
        attachment.attach_node(self._pins, self._objects, self.attach_mode, places.top, places.own)
        attachment.attach_kubelet(self._pins, self._objects, self.probes.cgroup)

    def _leave_root(self) -> None:
        """With `--attach pod`, drop what an earlier daemon has at the root, once no pod depends on it."""
        if self.attach_mode is not Attach.POD or not attachment.has_root(self._pins):
            return
        held = [pod.name for pod in self.pods() if not attachment.has_pod(self._pins, pod.cookie)]
        if held:
            _log.warning("the links at the root stay as long as they alone steer %s", ", ".join(held))
        else:
            attachment.release_root(self._pins)

    def _tell_overtakers(self, name: str, cgroup: Path) -> None:
        hook, program = HOOKS["zp_connect4"], self._objects.programs["zp_connect4"]
        before = preflight.overtakers(cgroup, hook.attach_type, program.id)
        if before:
            _log.warning("%s run before zproxy in %s and may hide service addresses", ", ".join(before), name)

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
        for tree in (pins, pins.former):
            _switch_off(tree.maps / "zp_pods")
            for directory in (*tree.pod_directories(), tree.links):
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


def _refuse_exclusive(attach: Attach, places: Places) -> None:
    own = {name: hook for name, hook in HOOKS.items() if hook.place is Place.OWN}
    if attach is Attach.POD:
        own |= {name: hook for name, hook in HOOKS.items() if hook.serves_daemon}
    else:
        preflight.refuse_exclusive(places.top, attachment.AT_ROOT)
    for cgroup in preflight.with_ancestors(places.own, places.root):
        preflight.refuse_exclusive(cgroup, own)


def _pin_again(fd: int, path: Path) -> None:
    """What somebody else pinned there meanwhile stays, and is reported."""
    with suppress(FileExistsError):
        syscall.obj_pin(fd, path)


def _write_node_ips(objects: Objects, ips: Sequence[str]) -> None:
    """Let the map have these addresses and no others."""
    table, wanted = objects.maps["zp_nodeip"], {pack_ip(ip) for ip in ips}
    for ip in wanted:
        syscall.map_update(table, ip, ENABLED)
    for ip in list(syscall.map_keys(table, IP.size)):
        if ip not in wanted:
            syscall.map_delete(table, ip)


def _tell(opened: Steering) -> None:
    """Say in the log what is in force."""
    chosen = opened.probes
    _log.info("attached at: %s", opened.attach_mode.value)
    of = {ProbeMode.CGROUP: f" {chosen.cgroup}", ProbeMode.NODE_IP: f" {', '.join(chosen.node_ips)}"}
    _log.info("probe mode: %s%s (%s)", chosen.mode.value, of.get(chosen.mode, ""), chosen.why)
    if chosen.warning:
        _log.warning("%s", chosen.warning)
