"""The pods of this node: enrol, unenrol, list. One operation per pod at a time."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from zproxy.config import RUN_ROOT
from zproxy.errors import EnrollError, ZproxyError
from zproxy.model.attach import Attach
from zproxy.model.pod import PodOptions
from zproxy.model.workload import Protocol, Workload
from zproxy.net.netns import Netns
from zproxy.node.enroll import (
    Sandbox,
    enroll,
    network_restore,
    open_netns,
    refuse_dns_without_server,
    refuse_own_namespace,
    unenroll,
)
from zproxy.node.pod import Pod
from zproxy.node.records import Record, Records
from zproxy.node.routes import PodNetwork
from zproxy.node.workers import PodWorker, least_loaded
from zproxy.state.store import Mesh
from zproxy.steering.steering import Steering

_log = logging.getLogger("zproxy.node")


class Manager:
    """Knows which pods are enrolled. `pods` and the records are changed under `_lock` only."""

    def __init__(
        self,
        node: str,
        mesh: Callable[[], Mesh],
        steering: Steering,
        workers: Sequence[PodWorker],
        records: Records | None = None,
    ) -> None:
        self.node = node
        self.pods: dict[str, Pod] = {}
        self._mesh = mesh
        self._steering = steering
        self._workers = workers
        self._records = records or Records(RUN_ROOT / node / "pods")
        self._lock = asyncio.Lock()

    async def enroll(
        self,
        pod: str,
        netns: str | None = None,
        pid: int | None = None,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
    ) -> dict[str, Any]:
        """Enrol `namespace/name`; return its row. Doing it again changes nothing. Raise EnrollError.

        `options` are those of PodOptions; an enrolled pod keeps those that are not given. `cgroup` names the
        pod's own, which is looked for otherwise.
        """
        workload = self._workload(pod, service_account)
        handle = open_netns(pod, netns, pid)
        async with self._lock:
            present = self.pods.get(pod)
            if present is not None and present.netns.key == handle.key:
                handle.close()
                if present.workload.identity != workload.identity:
                    raise EnrollError(
                        f"{pod} is enrolled as {present.workload.identity}; to change that, unenroll it first"
                    )
                if cgroup is not None and cgroup != present.given_cgroup:
                    at = present.cgroup.path or "no cgroup of its own"
                    raise EnrollError(f"{pod} is enrolled with {at}; to change that, unenroll it first")
                has_changed = await self._change(present, options or {})
                return self.row(present) | {"changed": has_changed}
            chosen = _options(options or {})
            try:
                self._refuse_taken(handle)
                if present is not None:  # the same pod in a new sandbox
                    await self._remove(present)
                sandbox = Sandbox(handle, pid, cgroup or "")
                enrolled = await self._add(workload, sandbox, service_account, chosen)
            except BaseException:
                handle.close()
                raise
        _log.info("enrolled %s in %s as %s", pod, handle, workload.identity)
        _warn(enrolled)
        own, why = enrolled.cgroup
        _log.info("cgroup of %s: %s (%s)", pod, own or "none of its own", why)
        return self.row(enrolled) | {"changed": True}

    async def unenroll(self, pod: str) -> dict[str, Any]:
        """Take the pod out again; raise EnrollError when it is not enrolled."""
        async with self._lock:
            present = self.pods.get(pod)
            if present is None:
                return await self._release(pod)
            row = self.row(present)
            await self._remove(present)
        _log.info("unenrolled %s", pod)
        return row | {"state": "unenrolled"}

    async def restore(self) -> None:
        """Enrol again what was enrolled when the last daemon ended; what is gone is collected.

        A pod that is there but cannot be enrolled stays steered, and so refused, until somebody mends that
        or unenrols it.
        """
        for record in self._records.load():
            try:
                await self.enroll(
                    record.pod,
                    record.netns,
                    None,
                    record.service_account,
                    record.options.as_json(),
                    record.cgroup or None,
                )
            except ZproxyError as error:
                if _is_there(record):
                    _log.error("not enrolled again, its connections are refused: %s: %s", record.pod, error)
                else:
                    _log.warning("not enrolled again, its namespace is gone: %s: %s", record.pod, error)
                    async with self._lock:
                        await self._forget(record)

    async def drain(self) -> None:
        """Let no pod take anything new; what is under way goes on."""
        for pod in tuple(self.pods.values()):
            await pod.straw.drain()

    async def close(self) -> None:
        """End every straw and leave steering: without a daemon pods are refused, NEVER in the clear."""
        async with self._lock:
            for pod in self.pods.values():
                await pod.straw.close("zproxy is shutting down")
                pod.close()
            self.pods.clear()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per enrolled pod."""
        return [self.row(pod) for _, pod in sorted(self.pods.items())]

    def row(self, pod: Pod) -> dict[str, Any]:
        """Return one pod as `zproxy pods` shows it; the keys are stable."""
        device, inode = pod.netns.key
        workload = pod.workload
        return {
            "pod": pod.name,
            "namespace": workload.namespace,
            "name": workload.name,
            "node": self.node,
            "ips": list(workload.workload_ips),
            "netns": {"path": pod.netns.path, "dev": device, "inode": inode, "cookie": pod.cookie},
            "service_account": workload.service_account,
            "identity": str(workload.identity),
            "state": "enrolled",
            **pod.options.as_json(),
            "attach": _attached_at(self._steering.attach_mode, pod),
            "cgroup": str(pod.cgroup.path or ""),
            "cgroup_why": pod.cgroup.why,
            "since": pod.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "listeners": pod.straw.ports,
            "worker": pod.straw.worker.number,
            "pid": os.getpid(),
        }

    def _workload(self, pod: str, service_account: str | None) -> Workload:
        namespace, slash, name = pod.partition("/")
        if not slash or not namespace or not name or "/" in name:
            raise EnrollError(f"{pod!r} is not a pod: write NAMESPACE/NAME")
        workload = self._mesh().by_pod(pod)
        if workload is None:
            raise EnrollError(
                f"unknown pod {pod}: the mesh has no such workload; `zproxy workloads` lists them"
            )
        if workload.node != self.node:
            raise EnrollError(
                f"{pod} is on node {workload.node or '(none)'}, this is the daemon of {self.node}"
            )
        if workload.protocol is not Protocol.HBONE:
            raise EnrollError(
                f"{pod} has protocol TCP in the mesh; peers would not use HBONE: set `protocol: HBONE`"
            )
        return workload if service_account is None else replace(workload, service_account=service_account)

    def _refuse_taken(self, netns: Netns) -> None:
        refuse_own_namespace(netns)
        for pod in self.pods.values():
            if pod.netns.key == netns.key:
                raise EnrollError(f"{netns.path} is the namespace of {pod.name}, which is enrolled already")

    async def _change(self, pod: Pod, wanted: dict[str, Any]) -> bool:
        """Give an enrolled pod other options; return whether it had others."""
        options = _options(pod.options.as_json() | wanted)
        if options == pod.options:
            return False
        if options.dns:
            refuse_dns_without_server(pod.name, pod.straw)
            addresses, interfaces = await asyncio.to_thread(pod.network.addresses)
            await asyncio.to_thread(pod.network.capture_dns, addresses, interfaces[0])
        record = self._records.get(pod.name)
        await asyncio.to_thread(self._steering.choose, pod.cookie, options)
        if not options.dns:
            await asyncio.to_thread(pod.network.release_dns)
        pod.options = options
        if record is not None:
            self._records.save(record._replace(options=options))
        _warn(pod)
        return True

    async def _add(
        self, workload: Workload, sandbox: Sandbox, service_account: str | None, options: PodOptions
    ) -> Pod:
        earlier = self._records.get(workload.pod)
        if (
            earlier is not None and earlier.cookie != sandbox.netns.cookie()
        ):  # of a sandbox that is no longer meant
            await self._forget(earlier)
            earlier = None
        worker = least_loaded(self._workers, (pod.straw for pod in self.pods.values()))
        pod = await enroll(workload, sandbox, self._steering, worker, options)
        if earlier is not None:
            pod.former_sysctls = earlier.former_sysctls
        try:
            self._records.save(pod.record(service_account))
        except OSError as error:
            await unenroll(pod, self._steering)
            raise EnrollError(
                f"cannot write the record of {pod.name}: {os.strerror(error.errno or 0)}; is {RUN_ROOT} full?"
            ) from error
        self.pods[pod.name] = pod
        return pod

    async def _remove(self, pod: Pod) -> None:
        await unenroll(pod, self._steering)
        self.pods.pop(pod.name, None)
        self._records.remove(pod.name)

    async def _release(self, pod: str) -> dict[str, Any]:
        """Unenrol what an earlier daemon enrolled and this one could not."""
        record = self._records.get(pod)
        if record is None:
            raise EnrollError(
                f"{pod} is not enrolled on node {self.node}; `zproxy pods` lists those that are"
            )
        await asyncio.to_thread(self._steering.detach, record.cookie)
        if _is_there(record):
            with open_netns(pod, record.netns, None) as netns:
                await asyncio.to_thread(network_restore, PodNetwork(netns), record.former_sysctls)
        self._records.remove(pod)
        _log.info("unenrolled %s", pod)
        return {"pod": pod, "state": "unenrolled", "ips": [], "node": self.node}

    async def _forget(self, record: Record) -> None:
        await asyncio.to_thread(self._steering.detach, record.cookie)
        self._records.remove(record.pod)


def _warn(pod: Pod) -> None:
    if pod.options.fail_open:
        _log.warning("%s fails open: without a daemon its traffic passes in the clear", pod.name)


def _attached_at(mode: Attach, pod: Pod) -> str:
    """Return at which cgroups the pod's programs hang: what the mode comes to for a pod without its own."""
    return mode.value if pod.cgroup.path is not None else Attach.ROOT.value


def _options(wanted: dict[str, Any]) -> PodOptions:
    try:
        return PodOptions.of_json(wanted)
    except ValueError as error:
        raise EnrollError(f"no such choice for a pod: {error}; udp is audit or block") from error


def _is_there(record: Record) -> bool:
    """Tell whether the namespace is the one that was enrolled, under the path that it had."""
    try:
        with open_netns(record.pod, record.netns, None) as found:
            return found.cookie() == record.cookie
    except EnrollError:
        return False
