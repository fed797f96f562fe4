"""The pods of this node: enrol, unenrol, list. One operation per pod at a time."""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from zproxy.config import RUN_ROOT
from zproxy.errors import EnrollError, ZproxyError
from zproxy.model.pod import PodOptions
from zproxy.model.workload import NetworkMode, Protocol, Workload
from zproxy.net import namespaces
from zproxy.net.netns import Netns
from zproxy.node.enroll import (
    Sandbox,
    enroll,
    network_of,
    network_restore,
    open_netns,
    refuse_own_namespace,
    unenroll,
)
from zproxy.node.pod import Pod
from zproxy.node.records import NO_RUNTIME, Origin, Record, Records
from zproxy.node.refused import Refused
from zproxy.node.stand_in import Handed, stand_in
from zproxy.node.wish import Wish, wish
from zproxy.node.workers import PlacedStraw, PodWorker, least_loaded
from zproxy.state.store import Mesh
from zproxy.steering.steering import Steering

_log = logging.getLogger("zproxy.node")


class Manager:
    """Knows which pods are enrolled. `pods` and the records are changed under `lock` only."""

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
        self.refused: dict[str, Refused] = {}
        """Those that are steered and that this daemon could not take up: to nobody, so they are refused."""
        self.on_change: Callable[[int], object] = bool
        """Called with the cookie of a pod that was enrolled or left."""
        self.on_gone: Callable[[Record], object] = bool
        """Called with the record of a runtime's pod whose namespace is gone, and that nobody unenrolled."""
        self.lock = asyncio.Lock()
        """Hold it to look at a pod while nobody enrols or unenrols."""

    async def enroll(  # noqa: PLR0913 - one parameter for each thing that may be asked for
        self,
        pod: str,
        netns: str | None = None,
        pid: int | None = None,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
        *,
        origin: Origin = NO_RUNTIME,
        attachment: str = "",
    ) -> dict[str, Any]:
        """Enrol `namespace/name`; return its row. Doing it again changes nothing. Raise EnrollError.

        `options` are those of PodOptions; an enrolled pod keeps those that are not given. `cgroup` names the
        pod's own, which is looked for otherwise. `origin` is what a container
        runtime calls the pod, `attachment` what its CNI plugin was told.
        """
        workload = self._workload(pod, service_account)
        handle = open_netns(pod, netns, pid)
        sandbox = Sandbox(handle, pid, cgroup or "", origin=origin, attachment=attachment)
        return await self.take(workload, sandbox, service_account, options or {})

    async def take(
        self,
        workload: Workload,
        sandbox: Sandbox,
        service_account: str | None,
        options: dict[str, Any],
        *,
        restored: Record | None = None,
    ) -> dict[str, Any]:
        """Enrol the pod of `workload` in `sandbox`, whose namespace is owned from here on; see `enroll`.

        `restored` is the record that it is taken up again by, if it still holds.
        """
        pod, handle = workload.pod, sandbox.netns
        async with self.lock:
            if restored is not None and self._records.get(pod) != restored:
                handle.close()
                raise EnrollError(f"{pod} was unenrolled or enrolled anew meanwhile")
            present = self.pods.get(pod)
            if present is not None and present.netns.key == handle.key:
                handle.close()
                if not _is_same(present.workload, workload, by_account=bool(sandbox.handed)):
                    raise EnrollError(
                        f"{pod} is enrolled as {present.workload.identity}; to change that, unenroll it first"
                    )
                if sandbox.cgroup and sandbox.cgroup != present.given_cgroup:
                    at = present.cgroup.path or "no cgroup of its own"
                    raise EnrollError(f"{pod} is enrolled with {at}; to change that, unenroll it first")
                self._learn_origin(present, sandbox.origin)
                has_changed = await self._change(present, options)
                if present.handed and sandbox.handed:
                    self._rename(present, sandbox.handed)
                return self._row(present) | {"changed": has_changed}
            chosen = _options(options)
            try:
                self._refuse_taken(handle)
                if present is not None:  # the same pod in a new sandbox
                    await self._remove(present)
                enrolled = await self._add(workload, sandbox, service_account, chosen)
            except BaseException:
                handle.close()
                raise
        _log.info("enrolled %s in %s as %s", pod, handle, workload.identity)
        _warn(enrolled)
        own, why = enrolled.cgroup
        _log.info("cgroup of %s: %s (%s)", pod, own or "none of its own", why)
        return self._row(enrolled) | {"changed": True}

    async def unenroll(self, pod: str) -> dict[str, Any]:
        """Take the pod out again; raise EnrollError when it is not enrolled."""
        async with self.lock:
            present = self.pods.get(pod)
            if present is None:
                return await self._release(pod)
            row = self._row(present)
            await self._remove(present)
        _log.info("unenrolled %s", pod)
        return row | {"state": "unenrolled"}

    async def leave(self, pod: str, is_meant: Callable[[Record], bool]) -> bool:
        """Unenrol the pod if there is a record of it and `is_meant` says so; return whether it did."""
        async with self.lock:
            record = self._records.get(pod)
            if record is None or not is_meant(record):
                return False
            present = self.pods.get(pod)
            if present is None:
                await self._release(pod)
                return True
            await self._remove(present)
        _log.info("unenrolled %s", pod)
        return True

    def wants(self, pod: str, ips: Collection[str] = ()) -> Wish:
        """Say whether a pod that is born on this node is to be enrolled, and why."""
        return wish(self._mesh(), self.node, pod, ips)

    async def restore(self) -> None:
        """Enrol again what was enrolled when the last daemon ended; what is gone is collected.

        A pod that is there but cannot be enrolled stays steered, and so refused, until that is mended or
        somebody unenrols it. It is tried again each time this is called.
        """
        for record in await asyncio.to_thread(list, self._records.load()):
            if record.pod not in self.pods:
                await self._restore(record)

    async def _restore(self, record: Record) -> None:
        found = await asyncio.to_thread(namespaces.find, record.cookie, (record.netns,))
        options = record.options.as_json()
        try:
            if found is None and record.handed:
                raise EnrollError("its namespace cannot be found; istio-cni has to hand it over again")
            if found is None and record.origin.sandbox:
                raise EnrollError("its sandbox was removed")
            if found is None:  # the path may be a new sandbox's
                await self.enroll(
                    record.pod, record.netns, None, record.service_account, options, record.cgroup or None
                )
            else:
                workload = await self._workload_for(record, found)
                sandbox = Sandbox(found, None, record.cgroup, record.handed, record.origin, record.attachment)
                await self.take(workload, sandbox, record.service_account, options, restored=record)
        except ZproxyError as error:
            if self._records.get(record.pod) is None or record.pod in self.pods:
                return  # it was unenrolled, or handed over, meanwhile
            if found is not None or record.handed:
                self.refuse(Refused(record.pod, record.netns, record.cookie, str(error)))
                return
            _log.warning("not enrolled again, its namespace is gone: %s: %s", record.pod, error)
            async with self.lock:
                await self._forget(record)
            self._tell_gone(record)

    async def _workload_for(self, record: Record, netns: Netns) -> Workload:
        try:
            if record.handed:
                return await stand_in(Handed.of(record), self.node, netns, self._mesh())
            return self._workload(record.pod, record.service_account)
        except BaseException:
            netns.close()
            raise

    async def handed(self) -> dict[str, str]:
        """Return the pods that were handed over, also those that are refused: uid → `namespace/name`."""
        records = await asyncio.to_thread(list, self._records.load())
        found = {record.handed: record.pod for record in records} | {
            pod.handed: pod.name for pod in self.pods.values()
        }
        found.pop("", None)
        return found

    def refuse(self, pod: Refused) -> None:
        """Show a pod that is steered to nobody; its reason is logged when it is another than before."""
        if self.refused.get(pod.name) != pod:
            _log.error("not enrolled again, its connections are refused: %s: %s", pod.name, pod.reason)
        self.refused[pod.name] = pod

    def forget_refused(self, cookie: int) -> None:
        """Show a refused pod no longer: there is nothing of it any more."""
        self.refused = {name: pod for name, pod in self.refused.items() if pod.cookie != cookie}

    async def collect(self, pod: Pod) -> None:
        """Forget a pod whose namespace nobody can enter any more; the caller holds `lock`."""
        record = self._records.get(pod.name)
        await self._remove(pod)
        if record is not None:
            self._tell_gone(record)

    def _tell_gone(self, record: Record) -> None:
        if record.origin.sandbox:
            self.on_gone(record)

    async def recorded(self) -> set[int]:
        """Return the cookies of the pods that there is a record of."""
        return {record.cookie for record in await asyncio.to_thread(list, self._records.load())}

    async def recorded_names(self, is_meant: Callable[[Record], bool]) -> list[str]:
        """Return the pods (`namespace/name`) whose record is meant, enrolled or not."""
        records = await asyncio.to_thread(list, self._records.load())
        return [record.pod for record in records if is_meant(record)]

    def present(self) -> dict[str, bool]:
        """Return the names of the pods that are enrolled, and whether somebody serves them."""
        return dict.fromkeys(self.refused, False) | dict.fromkeys(self.pods, True)

    async def straws(self) -> list[PlacedStraw]:
        """Return the straws of all pods, those that are being enrolled among them: it waits for these."""
        async with self.lock:
            return [pod.straw for pod in self.pods.values()]

    async def drain(self) -> None:
        """Let no pod take anything new; what is under way goes on."""
        for pod in tuple(self.pods.values()):
            await pod.straw.drain()

    async def close(self) -> None:
        """End every straw and leave steering: without a daemon pods are refused, NEVER in the clear."""
        async with self.lock:
            for pod in self.pods.values():
                await pod.straw.close("zproxy is shutting down")
                pod.close()
            self.pods.clear()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per enrolled pod, and one for each that is refused."""
        rows = [self._row(pod) for pod in self.pods.values()]
        rows += [pod.row(self.node) for pod in self.refused.values()]
        return sorted(rows, key=lambda row: str(row["pod"]))

    def _row(self, pod: Pod) -> dict[str, Any]:
        return pod.row(self.node, self._steering.attach_mode)

    def check(self, pod: str) -> None:
        """Raise EnrollError when the mesh does not have the pod so that it could be enrolled here."""
        self._workload(pod, None)

    def _workload(self, pod: str, service_account: str | None) -> Workload:
        namespace, slash, name = pod.partition("/")
        if not slash or not namespace or not name or "/" in name:
            raise EnrollError(f"{pod!r} is not a pod: write NAMESPACE/NAME")
        workload = self._mesh().by_pod(pod, self.node)
        if workload is None:
            raise EnrollError(
                f"unknown pod {pod}: the mesh has no such workload; `zproxy workloads` lists them"
            )
        if workload.node != self.node:
            raise EnrollError(
                f"{pod} is on node {workload.node or '(none)'}, this is the daemon of {self.node}"
            )
        if workload.network_mode is NetworkMode.HOST_NETWORK:
            raise EnrollError(f"{pod} is on its node's network, which is not its own to steer; leave it out")
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

    def _rename(self, pod: Pod, handed: str) -> None:
        """A pod that was handed over is handed over again, perhaps by another uid."""
        record = self._records.get(pod.name)
        if record is not None and handed != pod.handed:
            self._records.save(record._replace(handed=handed))
        pod.handed = handed

    async def _change(self, pod: Pod, wanted: dict[str, Any]) -> bool:
        """Give an enrolled pod other options; return whether it had others."""
        options = _options(pod.options.as_json() | wanted)
        if options == pod.options:
            return False
        if options.dns:
            addresses, interfaces = await asyncio.to_thread(pod.network.addresses)
            if interfaces:  # or it has lost its addresses, and the reconciler does it when it has some again
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

    def _learn_origin(self, pod: Pod, origin: Origin) -> None:
        """Keep which pod of a runtime it is, where that was not known when it was enrolled."""
        record = self._records.get(pod.name)
        if origin.sandbox and origin != pod.origin and record is not None:
            pod.origin = origin
            self._records.save(record._replace(origin=origin))

    async def _add(
        self, workload: Workload, sandbox: Sandbox, service_account: str | None, options: PodOptions
    ) -> Pod:
        earlier = self._records.get(workload.pod)
        if earlier is not None and earlier.cookie != sandbox.netns.cookie():  # of one that is no longer meant
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
        self.refused.pop(pod.name, None)
        self.on_change(pod.cookie)
        return pod

    async def _remove(self, pod: Pod) -> None:
        await unenroll(pod, self._steering)
        self.pods.pop(pod.name, None)
        self._records.remove(pod.name)
        self.on_change(pod.cookie)

    async def _release(self, pod: str) -> dict[str, Any]:
        """Unenrol what an earlier daemon enrolled and this one could not."""
        record, refused = self._records.get(pod), self.refused.get(pod)
        if record is None and refused is not None:
            record = Record(pod, refused.netns, refused.cookie, None, {})
        if record is None:
            raise EnrollError(
                f"{pod} is not enrolled on node {self.node}; `zproxy pods` lists those that are"
            )
        await asyncio.to_thread(self._steering.detach, record.cookie)
        netns = await asyncio.to_thread(namespaces.find, record.cookie, (record.netns,))
        if netns is not None:
            with netns:
                network = network_of(netns, is_external=record.is_external)
                await asyncio.to_thread(network_restore, network, record.former_sysctls)
        self._records.remove(pod)
        self.refused.pop(pod, None)
        _log.info("unenrolled %s", pod)
        return {"pod": pod, "state": "unenrolled", "ips": [], "node": self.node}

    async def _forget(self, record: Record) -> None:
        await asyncio.to_thread(self._steering.detach, record.cookie)
        self._records.remove(record.pod)
        self.refused.pop(record.pod, None)


def _is_same(present: Workload, wanted: Workload, *, by_account: bool) -> bool:
    """Whether an enrolled pod has the identity that is wanted; who hands pods over names an account only."""
    if by_account:
        return present.service_account == wanted.service_account
    return present.identity == wanted.identity


def _warn(pod: Pod) -> None:
    if pod.options.fail_open:
        _log.warning("%s fails open: without a daemon its traffic passes in the clear", pod.name)


def _options(wanted: dict[str, Any]) -> PodOptions:
    try:
        return PodOptions.of_json(wanted)
    except ValueError as error:
        raise EnrollError(f"no such choice for a pod: {error}; udp is audit or block") from error
