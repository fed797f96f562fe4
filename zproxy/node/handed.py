"""Pods that istio-cni hands over: enrolled by the descriptor of their namespace, known by their uid.

Those that somebody enrolled by hand stay theirs: handing such a pod over changes nothing, and nor does taking
it back.
"""

import asyncio
from collections.abc import Callable

from zproxy.errors import EnrollError
from zproxy.net import namespaces
from zproxy.net.netns import Netns
from zproxy.net.tasks import in_thread
from zproxy.node.enroll import Sandbox
from zproxy.node.manager import Manager
from zproxy.node.stand_in import Handed, stand_in
from zproxy.state.store import Mesh


class HandedPods:
    """What zproxy.zds asks for; one thing at a time, in the order in which it was asked."""

    def __init__(self, manager: Manager, mesh: Callable[[], Mesh], trust_domain: str) -> None:
        """`trust_domain` is that of pods which the mesh has no record of yet."""
        self._manager = manager
        self._mesh = mesh
        self._trust_domain = trust_domain
        self._turn = asyncio.Lock()

    async def take(self, uid: str, pod: tuple[str, str, str], fd: int) -> None:
        """Enrol (namespace, name, service account) by `fd`, which is owned from here on; raise EnrollError.

        A pod that is enrolled already stays as it is; in another namespace, it moves there.
        """
        try:
            netns = Netns.of_fd(fd)
        except OSError as error:
            raise EnrollError(f"what was handed over is no network namespace: {error.strerror}") from error
        async with self._turn:
            await self._take(Handed(uid, *pod, self._trust_domain), netns)

    async def _take(self, handed: Handed, netns: Netns) -> None:
        try:
            workload = await stand_in(handed, self._manager.node, netns, self._mesh())
            netns.path = await in_thread(lambda: namespaces.path_of(netns.key)) or netns.path
            former = [
                pod.name
                for pod in self._manager.pods.values()
                if pod.handed == handed.uid and pod.name != workload.pod
            ]
            for name in former:
                await self._manager.unenroll(name)
        except BaseException:
            netns.close()
            raise
        await self._manager.take(workload, Sandbox(netns, handed=handed.uid), handed.service_account, {})

    async def release(self, uid: str) -> None:
        """Unenrol a pod that was handed over; nothing happens when there is none."""
        async with self._turn:
            name = (await self._manager.handed()).get(uid)
            if name is not None:
                await self._manager.unenroll(name)

    async def known(self) -> list[str]:
        """Return the uids of all that were handed over."""
        async with self._turn:
            return list(await self._manager.handed())
