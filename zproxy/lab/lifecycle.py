"""`zproxy lab up` and `down`: network, daemons, app and enrolment, in this order, and back.

Every step can be found half done, because a lab may be killed at any moment: `up` begins with `down`
unless the lab is whole, and `down` takes whatever it finds.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT, RUN_ROOT
from zproxy.errors import ConfigError, RequirementError, ZproxyError
from zproxy.lab import jobs, pod_files, topology
from zproxy.lab.evidence.sockets import tcp_listeners
from zproxy.lab.jobs import Job
from zproxy.lab.layout import APP_PORTS, CLUSTER_DNS, OTHER_DNS, SERVICE, Layout, NodeSite, make_layout
from zproxy.lab.mesh import MARK, mesh_text
from zproxy.net.netns import Netns
from zproxy.node.client import Client
from zproxy.steering.steering import remove

READY_S: Final = 20.0
"""Longest start of a daemon or the app; a daemon compiles its eBPF programs first."""
_POLL_S: Final = 0.02
DNS_PORT: Final = 53

Say = Callable[[str], None]


class Lab(NamedTuple):
    """A lab. Users have ONE: its namespaces, control sockets and pins have names to rely on."""

    layout: Layout = make_layout()
    directory: Path = RUN_ROOT / "lab"

    @property
    def daemons(self) -> tuple[Job, ...]:
        """The daemon of each node, in the order of the nodes."""
        return tuple(self._daemon(node) for node in self.layout.nodes)

    @property
    def app(self) -> Job:
        """The HTTP app in the server pod."""
        log = self.directory / "app.log"
        ports = tuple(text for port in APP_PORTS for text in ("--port", str(port)))
        return Job("HTTP app", self.layout.pods[1].netns, "zproxy.lab.app", (*ports, "--log", str(log)), log)

    @property
    def resolver(self) -> Job:
        """The cluster's DNS and a resolver outside, both on the first node; they do not know the mesh."""
        log = self.directory / "dns.log"
        listen = tuple(text for address in (CLUSTER_DNS, OTHER_DNS) for text in ("--listen", address))
        netns = self.layout.nodes[0].netns
        return Job("DNS server", netns, "zproxy.lab.resolver", (*listen, "--log", str(log)), log)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All its programs."""
        return *self.daemons, self.resolver, self.app

    @property
    def mesh(self) -> Path:
        """The mesh state that both daemons read."""
        return self.directory / "mesh.yaml"

    @property
    def ready(self) -> Path:
        """Exists exactly while the lab is whole: written last, removed first."""
        return self.directory / "ready"

    def _daemon(self, node: NodeSite) -> Job:
        arguments = ("--node", node.name, "--config", str(self.mesh), "--ca-dir", str(self.directory / "ca"))
        log = self.directory / f"{node.name}.log"
        return Job(f"daemon of {node.name}", node.netns, "zproxy", ("run", *arguments), log)


def up(say: Say, lab: Lab | None = None) -> None:
    """Build the lab, or say that it is there. What a killed lab left is removed first."""
    lab = lab or Lab()
    with alone(lab, say):
        if is_whole(lab) and MARK not in lab.mesh.read_text():
            say("the lab is already up")
        else:
            _refuse_foreign_daemons(lab)
            for item in _take_down(lab):
                say(f"removed from a broken lab: {item}")
            try:
                _build(lab, say)
            except BaseException:
                _take_down(lab)
                raise
        _describe(lab, say)


def down(say: Say, lab: Lab | None = None) -> None:
    """Remove everything of the lab, whatever state it is in."""
    lab = lab or Lab()
    with alone(lab, say):
        _refuse_foreign_daemons(lab)
        removed = _take_down(lab)
    for item in removed:
        say(f"removed: {item}")
    if not removed:
        say("there is no lab")


@contextlib.contextmanager
def alone(lab: Lab, say: Say) -> Iterator[None]:
    """Let one command change the lab at a time; the lock is on the parent directory, which stays."""
    if os.geteuid() != 0:
        raise RequirementError(
            "the lab needs root: it makes network namespaces and loads eBPF; run it with sudo"
        )
    lab.directory.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(lab.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `zproxy lab` to end")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def is_whole(lab: Lab) -> bool:
    """Whether everything of the lab is there and runs."""
    if not lab.ready.exists() or len(topology.present(lab.layout)) != len(lab.layout.namespaces):
        return False
    if not all(jobs.running(job) for job in lab.jobs) or not pod_files.are_there(lab.layout):
        return False
    return all(
        site.pod in _enrolled(node.name) for node, site in zip(lab.layout.nodes, lab.layout.pods, strict=True)
    )


def _enrolled(node: str) -> set[str]:
    with contextlib.suppress(ZproxyError):
        return {row["pod"] for row in Client(node).call("pods") if row.get("state") != "refused"}
    return set()


def _refuse_foreign_daemons(lab: Lab) -> None:
    for node, job in zip(lab.layout.nodes, lab.daemons, strict=True):
        if not jobs.running(job) and _answers(node.name):
            raise ConfigError(
                f"a daemon that is not the lab's runs for {node.name}; stop it, the lab needs this name"
            )


def _build(lab: Lab, say: Say) -> None:
    lab.directory.mkdir(mode=0o700)
    lab.mesh.write_text(mesh_text(lab.layout))
    pod_files.write(lab.layout)
    topology.build(lab.layout)
    say(f"network: {', '.join(lab.layout.namespaces)}")
    for job in lab.jobs:
        jobs.start(job)
    for node, job in zip(lab.layout.nodes, lab.daemons, strict=True):
        _wait(job, lambda node=node: _answers(node.name))  # type: ignore[misc]  # mypy infers no lambda with defaults
        say(f"{job.name}: pid {', '.join(map(str, jobs.running(job)))}, log {job.log}")
    _wait(lab.app, lambda: _listens(lab.app, APP_PORTS))
    _wait(lab.resolver, lambda: _listens(lab.resolver, (DNS_PORT,)))
    for node, site in zip(lab.layout.nodes, lab.layout.pods, strict=True):
        Client(node.name).call("enroll", pod=site.pod, netns=site.netns)
        say(f"enrolled {site.pod} on {node.name}")
    lab.ready.touch()


def _wait(job: Job, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_ready():
        if not jobs.running(job):
            raise ZproxyError(f"the {job.name} ended at once; its last words: {jobs.last_words(job)}")
        if time.monotonic() > deadline:
            raise ZproxyError(f"the {job.name} was not ready in {READY_S:.0f} s: {jobs.last_words(job)}")
        time.sleep(_POLL_S)


def _answers(node: str) -> bool:
    with contextlib.suppress(ZproxyError):
        Client(node).call("status")
        return True
    return False


def _listens(job: Job, ports: tuple[int, ...]) -> bool:
    with Netns.named(job.netns) as netns:
        return set(ports) <= {entry.local.port for entry in tcp_listeners(netns)}


def _take_down(lab: Lab) -> list[str]:
    """Undo `_build` from its last step to its first, each step as far as it was done."""
    if not lab.directory.exists() and not topology.present(lab.layout):
        return []
    lab.ready.unlink(missing_ok=True)
    removed = list(_unenroll(lab))
    removed += jobs.stop(lab.jobs)
    for node in lab.layout.nodes:
        pins = remove(node.name, PIN_ROOT)
        removed += [f"{len(pins)} eBPF pins of {node.name}"] if pins else []
        shutil.rmtree(RUN_ROOT / node.name, ignore_errors=True)
    removed += topology.dismantle(lab.layout)
    removed += pod_files.remove(lab.layout)
    shutil.rmtree(lab.directory, ignore_errors=True)
    return removed


def _unenroll(lab: Lab) -> Iterator[str]:
    """Let the pods go while their daemons live; without a daemon the pins' removal does it."""
    for node, site, job in zip(lab.layout.nodes, lab.layout.pods, lab.daemons, strict=True):
        if jobs.running(job) and site.pod in _enrolled(node.name):
            with contextlib.suppress(ZproxyError):
                Client(node.name).call("unenroll", pod=site.pod)
                yield f"enrolment of {site.pod}"


def open_pod(pod: str, lab: Lab | None = None) -> Netns:
    """Open the namespace of a pod of the lab; raise ConfigError when there is none."""
    sites = {site.pod: site for site in (lab or Lab()).layout.pods}
    if pod not in sites:
        raise ConfigError(f"the lab has no pod {pod!r}, only {' and '.join(sites)}")
    try:
        return Netns.named(sites[pod].netns)
    except OSError as error:
        raise ConfigError(
            f"{pod} has no network namespace: is the lab up? `zproxy lab up` builds it"
        ) from error


def _describe(lab: Lab, say: Say) -> None:
    for node, site in zip(lab.layout.nodes, lab.layout.pods, strict=True):
        say(f"{site.pod}: {site.ip4} {site.ip6} on {node.name} {node.ip4}, namespace {site.netns}")
    say(f"{SERVICE.hostname}: {' '.join(SERVICE.vips)}, before {lab.layout.pods[1].pod}")
    say(f"DNS: {CLUSTER_DNS}, as in the pods' resolv.conf, and {OTHER_DNS}; they know www.example.com")
    say(f"try: zproxy lab exec demo/client -- curl -s http://{SERVICE.name}:{APP_PORTS[0]}/get")
