"""An informer that listens to an ApiServer over real HTTP, for as long as a test's coroutine runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support.apiserver import ApiServer
from zproxy.kube.api import KubeApi
from zproxy.kube.backoff import Backoff
from zproxy.kube.informer import Informer
from zproxy.kube.ledger import Kind
from zproxy.kube.objects import PODS
from zproxy.net.tasks import spawn

WAIT_S = 20.0


class Informed:
    """What a test's coroutine is given."""

    def __init__(self, server: ApiServer, api: KubeApi, kind: Kind[Any]) -> None:
        self.server = server
        self.api = api
        self.changes = 0
        self.informer: Informer[Any] = Informer(kind, api, self._count, Backoff(0.05))

    @property
    def names(self) -> set[str]:
        """Of the objects that are known."""
        return set(self.informer.ledger.objects)

    def _count(self) -> None:
        self.changes += 1


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds; fail after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is on the other side of a socket
            await asyncio.sleep(0.005)
    assert condition(), what


def informed(
    server: ApiServer,
    directory: Path,
    scenario: Callable[[Informed], Awaitable[None]],
    kind: Kind[Any] = PODS,
) -> None:
    """Run an informer and, beside it, `scenario`."""

    async def go() -> None:
        api = KubeApi(server.kubeconfig(directory / "kubeconfig"))
        made = Informed(server, api, kind)
        task = spawn(made.informer.run(), "informer")
        try:
            await scenario(made)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await api.close()

    asyncio.run(go())
