"""Enrols the pods of this node that Kubernetes' labels want in the mesh, and writes down that it has.

It looks at everything after each change of the mesh, and every minute: a pod may have got a new sandbox, and
somebody may have unenrolled it by hand. What fails is tried again, and its reason is logged when it changes.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from zproxy.errors import ZproxyError
from zproxy.kube.backoff import Backoff
from zproxy.kube.cluster import Cluster
from zproxy.kube.informer import Api, ApiFailed, NotThere
from zproxy.kube.ledger import Expired
from zproxy.kube.objects import BYPASS_INBOUND, REDIRECTED, REDIRECTION, Pod
from zproxy.kube.plan import Enrolled, Plan, dns_of, plan
from zproxy.kube.translate import local_pods

RESYNC_S: Final = 60.0
NOBODY: Final = Enrolled("", False)

_log = logging.getLogger("zproxy.kube")


class Found(NamedTuple):
    """Where a pod's network namespace is; one of the two is given."""

    pid: int | None = None
    """A process in it."""
    netns: str | None = None
    """A path."""
    cgroup: str | None = None
    """The pod's own."""


class FindSandboxes(Protocol):
    """Finds the sandboxes of pods of this node by their uid."""

    async def __call__(self, uids: Collection[str]) -> Mapping[str, Found]:
        """Return those that are there by now."""


class Enroller(Protocol):
    """What node.manager.Manager is."""

    async def enroll(
        self,
        pod: str,
        netns: str | None = None,
        pid: int | None = None,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
    ) -> dict[str, Any]:
        """Enrol `namespace/name`; doing it again changes nothing. Raise ZproxyError."""

    async def unenroll(self, pod: str) -> dict[str, Any]:
        """Take it out again; raise ZproxyError."""

    def present(self) -> set[str]:
        """Return the names of those that are enrolled, also if nobody serves them."""


class Controller:
    """Lives on the event loop. `run` is its whole life."""

    def __init__(self, cluster: Cluster, api: Api, enroller: Enroller, find: FindSandboxes) -> None:
        self._cluster = cluster
        self._api = api
        self._enroller = enroller
        self._find = find
        self._ours: dict[str, Enrolled] = {}
        self._complaints: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._backoff = Backoff()

    def look(self) -> None:
        """Have it look soon: the mesh is another."""
        self._wake.set()

    async def run(self) -> None:
        """Enrol and unenrol until cancelled."""
        next_verification = 0.0
        while True:
            is_done = False
            if self._cluster.is_synced:
                verify = monotonic() >= next_verification
                next_verification = monotonic() + RESYNC_S if verify else next_verification
                try:
                    is_done = await self.reconcile(verify=verify)
                except Exception:  # a mistake with one pod must not end this for all
                    _log.exception("the controller stumbled and goes on")
            if is_done:
                self._backoff.reset()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), RESYNC_S if is_done else self._backoff.wait_s())
            self._wake.clear()

    async def reconcile(self, *, verify: bool = False) -> bool:
        """Do what is to be done now; return whether nothing is left to be tried again."""
        snapshot, node = self._cluster.snapshot(), self._cluster.place.node
        pods = list(local_pods(snapshot, node))
        self._forget({pod.key for pod, _ in pods})
        todo = plan(pods, self._enroller.present(), self._ours, verify=verify)
        is_done = all([await self._unenroll(name) for name in todo.unenroll])
        is_done = await self._enroll(todo.enroll) and is_done
        todo = plan(pods, self._enroller.present(), self._ours)
        return await self._annotate(todo) and is_done

    def _forget(self, known: set[str]) -> None:
        """Keep nothing about pods that are neither in Kubernetes nor enrolled."""
        known |= self._enroller.present()
        self._complaints = {name: why for name, why in self._complaints.items() if name in known}
        self._ours = {name: enrolled for name, enrolled in self._ours.items() if name in known}

    async def _enroll(self, pods: list[Pod]) -> bool:
        if not pods:
            return True
        found = await self._find({pod.uid for pod in pods})
        return all([await self._enroll_one(pod, found.get(pod.uid)) for pod in pods])

    async def _enroll_one(self, pod: Pod, at: Found | None) -> bool:
        if at is None:
            if pod.key in self._enroller.present() and self._ours.get(pod.key, NOBODY).uid == pod.uid:
                return True  # nothing runs in it any more, which is no reason to take it out
            return self._complain(pod.key, "its network namespace is not found yet: no process is in it")
        dns = dns_of(pod)
        try:
            await self._enroller.enroll(pod.key, at.netns, at.pid, None, {"dns": dns}, at.cgroup)
        except ZproxyError as error:
            return self._complain(pod.key, str(error))
        if pod.bypass_inbound and pod.key not in self._ours:
            _log.warning(
                "%s: the annotation %s is not followed, what comes to the pod is subject to policy",
                pod.key,
                BYPASS_INBOUND,
            )
        self._complaints.pop(pod.key, None)
        self._ours[pod.key] = Enrolled(pod.uid, dns)
        return True

    async def _unenroll(self, name: str) -> bool:
        try:
            await self._enroller.unenroll(name)
        except ZproxyError as error:
            return self._complain(name, str(error))
        self._ours.pop(name, None)
        return True

    async def _annotate(self, todo: Plan) -> bool:
        wanted = [(pod, REDIRECTED) for pod in todo.annotate]
        for pod, value in [*wanted, *((pod, None) for pod in todo.clear)]:
            metadata = {"uid": pod.uid, "annotations": {REDIRECTION: value}}
            try:
                path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
                await self._api.patch(path, {"metadata": metadata})
            except NotThere:
                continue  # the watch will tell
            except (ApiFailed, Expired) as error:
                return self._complain(pod.key, f"its annotation {REDIRECTION} cannot be written: {error}")
        return True

    def _complain(self, name: str, why: str) -> bool:
        if self._complaints.get(name) != why:
            self._complaints[name] = why
            _log.warning("%s: %s; it is tried again", name, why)
        return False
