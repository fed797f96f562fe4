"""Enrolment: the steps that make a pod's traffic come to its straw, and their undoing.

Order matters. Listeners are up before anything is redirected, and the steering entry is written last: at
no moment is traffic sent to nothing. A step that fails undoes those before it. Connections that exist at
enrolment are left alone: steering looks at connect() and at packets without a socket only.
"""

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import EnrollError
from zproxy.model.pod import PodOptions
from zproxy.model.workload import Workload
from zproxy.net.netns import NAMED, Netns
from zproxy.node import resolv_conf
from zproxy.node.pod import Pod
from zproxy.node.records import NO_RUNTIME, Origin
from zproxy.node.routes import ExternalNetwork, PodNetwork
from zproxy.node.workers import PodWorker
from zproxy.steering.steering import PodSteering, Steering

_log = logging.getLogger("zproxy.node")


class Sandbox(NamedTuple):
    """Where a pod is, as enrolment was told."""

    netns: Netns
    pid: int | None = None
    """A process in it."""
    cgroup: str = ""
    """Its cgroup; empty leaves it to a look at its processes."""
    handed: str = ""
    """By which uid istio-cni handed it over; empty when somebody enrols it."""
    origin: Origin = NO_RUNTIME
    attachment: str = ""
    """What its runtime calls it; empty when it was not its runtime that asked."""


FORBIDDEN: Final = {"/proc/self/ns/net": "the daemon's own", "/proc/1/ns/net": "the host's"}


def open_netns(pod: str, netns: str | None, pid: int | None) -> Netns:
    """Return the namespace that was asked for; by default the one named NAMESPACE-NAME after the pod.

    Raise EnrollError with what to do when there is none.
    """
    if netns is not None and pid is not None:
        raise EnrollError("give --netns or --pid, not both")
    if pid is not None:
        path, remedy = Path(f"/proc/{pid}/ns/net"), f"is process {pid} still running?"
    else:
        path = Path(netns) if netns and "/" in netns else NAMED / (netns or pod.replace("/", "-"))
        remedy = "`ip netns list` shows the named ones; or give --netns NAME|PATH or --pid PID"
    try:
        return Netns.open(path)
    except FileNotFoundError as error:
        raise EnrollError(f"no network namespace {path} for pod {pod}: {remedy}") from error
    except OSError as error:
        raise EnrollError(
            f"cannot open {path} as a network namespace: {os.strerror(error.errno or 0)}"
        ) from error


def refuse_own_namespace(netns: Netns) -> None:
    """A straw in the daemon's own or the host's namespace would capture the node; raise EnrollError."""
    for path, whose in FORBIDDEN.items():
        try:
            with Netns.open(path) as forbidden:
                is_same = forbidden.key == netns.key
        except OSError:
            continue  # pid 1 may be hidden from us
        if is_same:
            raise EnrollError(
                f"{netns.path} is {whose} network namespace, not a pod's; name the pod's with --netns"
            )
    if netns.is_initial():
        raise EnrollError(
            f"{netns.path} is the host's network namespace, not a pod's; name the pod's with --netns"
        )


async def enroll(
    workload: Workload,
    sandbox: Sandbox,
    steering: Steering,
    worker: PodWorker,
    options: PodOptions,
) -> Pod:
    """Take `sandbox` as the pod of `workload`; its straw is on `worker`.

    The returned Pod owns the namespace; on failure nothing is left behind, and what another mesh or daemon
    has is found before anything is changed.
    """
    netns = sandbox.netns
    network = network_of(netns, is_external=steering.is_external)
    async with AsyncExitStack() as undo:
        addresses, interfaces = await asyncio.to_thread(network.addresses)
        _check_addresses(workload, addresses)
        cgroup = await asyncio.to_thread(
            steering.examine, workload.pod, netns, sandbox.pid, sandbox.cgroup or None
        )
        straw = await worker.open_straw(workload, netns)
        undo.push_async_callback(straw.close, "enrolment failed")
        conf = await asyncio.to_thread(resolv_conf.read, netns, sandbox.pid)
        if conf is None and steering.is_external:  # ztunnel's way: it asks those of its own pod
            conf = await asyncio.to_thread(resolv_conf.own)
        await straw.use(conf)
        former = await asyncio.to_thread(network.prepare)
        undo.push_async_callback(asyncio.to_thread, network_restore, network, former)
        if options.dns and interfaces:
            await asyncio.to_thread(network.capture_dns, addresses, interfaces[0])
        cookie = netns.cookie()
        steer = PodSteering(
            netns=netns,
            cookie=cookie,
            name=workload.pod,
            uid=workload.uid,
            ips=addresses,
            interfaces=interfaces,
            plaintext_listener=straw.plaintext_fd,
            options=options,
            source_ports=await asyncio.to_thread(network.source_ports),
            cgroup=cgroup.path,
        )
        await asyncio.to_thread(steering.attach, steer)
        undo.pop_all()
    pod = Pod(workload, netns, cookie, straw, network, options)
    pod.former_sysctls, pod.pid = former, sandbox.pid
    pod.cgroup, pod.given_cgroup = cgroup, sandbox.cgroup
    pod.handed = sandbox.handed
    pod.origin = sandbox.origin
    pod.attachment = sandbox.attachment
    return pod


async def unenroll(pod: Pod, steering: Steering) -> None:
    """Give the pod back as it was; connections that its straw carries end."""
    await asyncio.to_thread(steering.detach, pod.cookie)
    await pod.straw.close("the pod was unenrolled")
    await asyncio.to_thread(network_restore, pod.network, pod.former_sysctls)
    pod.close()


def network_of(netns: Netns, *, is_external: bool) -> PodNetwork:
    """Return what may be done to the namespace of a pod."""
    return ExternalNetwork(netns) if is_external else PodNetwork(netns)


def network_restore(network: PodNetwork, former: dict[str, str]) -> None:
    """Undo `PodNetwork.prepare` as far as the kernel lets us: a pod that leaves is NEVER held back by it."""
    try:
        network.restore(former)
    except (OSError, EnrollError) as error:
        _log.warning("not everything is as it was before enrolment: %s", error)


def _check_addresses(workload: Workload, addresses: tuple[str, ...]) -> None:
    missing = [ip for ip in workload.workload_ips if ip not in addresses]
    if missing:
        found = ", ".join(addresses) or "none"
        raise EnrollError(
            f"the mesh says that {workload.pod} has {', '.join(missing)}, but its network namespace "
            f"has {found}; is it another pod's?"
        )
