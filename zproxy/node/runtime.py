"""Pods of a container runtime: found by their name, enrolled by what the runtime says of them, listed.

The daemon asks and not the command, since it has the rights and knows who is enrolled. What the runtime says
is a way to a network namespace and nothing more: the mesh says which workloads there are, the kernel which
addresses, and a namespace is known by its cookie from then on.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from zproxy.cri import endpoint
from zproxy.cri.sandbox import Brief, PodSandbox, choose, refusal
from zproxy.errors import EnrollError, RuntimeFailed
from zproxy.net.netns import Netns
from zproxy.node.candidates import row_of
from zproxy.node.manager import Manager
from zproxy.node.records import Origin, Record

DEFAULT_ACCOUNT: Final = "default"

_log = logging.getLogger("zproxy.runtime")


class Asks(Protocol):
    """What is wanted of a client; zproxy.cri.client.RuntimeClient is one."""

    endpoint: Path

    async def sandboxes(self) -> list[Brief]:
        """Return all sandboxes of the node."""

    async def sandbox(self, name: str) -> PodSandbox:
        """Return everything about one."""

    async def sandbox_of(self, container: str) -> str:
        """Return the sandbox that a container is in."""

    def events(self) -> AsyncIterator[str]:
        """Yield a name whenever something has changed."""

    async def close(self) -> None:
        """Drop the connection."""


class Choices(NamedTuple):
    """What may be chosen for a pod, as Manager.enroll takes it."""

    service_account: str | None = None
    options: dict[str, Any] | None = None
    cgroup: str | None = None


class RuntimePods:
    """The commands about pods of a runtime. Connects when there is something to ask, and then stays so."""

    def __init__(self, manager: Manager, connect: Callable[[Path], Asks], wish: str | None = None) -> None:
        """`wish` is what the operator said of the runtime's endpoint; None leaves it to a look."""
        self.on_taken: Callable[[], object] = bool
        """Called when a pod of the runtime was enrolled."""
        self._manager = manager
        self._connect = connect
        self._wish = wish
        self._client: Asks | None = None

    def client(self) -> Asks | None:
        """Return the client of the runtime; None where there is no runtime, or none is wanted."""
        path = endpoint.find(self._wish)
        if path is None:
            return None
        if self._client is None or self._client.endpoint != path:
            self._client = self._connect(path)
        return self._client

    async def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            await self._client.close()

    async def enroll(  # noqa: PLR0913 - one parameter for each option
        self,
        pod: str | None = None,
        netns: str | None = None,
        pid: int | None = None,
        *,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
        pod_uid: str | None = None,
        container: str | None = None,
    ) -> dict[str, Any]:
        """Enrol a pod where it was said to be, or where the runtime says that it is; return its row.

        `pod` may be left out where a uid or a container names it. A pod that no runtime has is looked for
        under the namespace that is named after it. Raise EnrollError.
        """
        chosen = Choices(service_account, options, cgroup)
        if netns is not None or pid is not None:
            if pod_uid or container:
                raise EnrollError(
                    "--pod-uid and --container leave it to the runtime where the pod is; give neither "
                    "--netns nor --pid beside them"
                )
            return await self._manager.enroll(_named(pod), netns, pid, *chosen)
        found = await self._find(pod, pod_uid, container)
        if not isinstance(found, str):
            return await self._take(found, chosen)
        if pod_uid or container:
            raise EnrollError(found)
        try:
            return await self._manager.enroll(_named(pod), None, None, *chosen)
        except EnrollError as error:
            if not found:
                raise
            raise EnrollError(f"{error}; and {found}") from error

    async def _take(self, found: PodSandbox, chosen: Choices) -> dict[str, Any]:
        if sentence := refusal(found):
            raise EnrollError(sentence)
        origin = Origin(found.brief.uid, found.brief.id)
        row = await self._manager.enroll(found.pod, place(found), None, *chosen, origin=origin)
        self.on_taken()
        warnings = []
        if chosen.service_account is None and row["service_account"] == DEFAULT_ACCOUNT:
            warnings.append(
                f"{found.pod} has the identity of service account {DEFAULT_ACCOUNT}: neither the mesh nor "
                "--service-account names another, and the runtime does not know"
            )
            _log.warning("%s", warnings[0])
        return row | {"warnings": warnings}

    async def again(self, record: Record, name: str) -> None:
        """Enrol a pod in its new sandbox as it was enrolled in its former one; raise ZproxyError."""
        client = self.client()
        if client is None:
            raise RuntimeFailed("there is no container runtime any more")
        chosen = Choices(record.service_account, record.options.as_json(), None)
        await self._take(await client.sandbox(name), chosen)

    async def candidates(self) -> list[dict[str, Any]]:
        """Return a row for each enrolled pod, and for each other one that the runtime has."""
        rows = self._manager.rows()
        client = self.client()
        if client is None:
            return rows
        enrolled = {row["pod"] for row in rows}
        current: dict[str, Brief] = {}
        for each in sorted(await client.sandboxes(), key=lambda each: (each.is_ready, each.created_ns)):
            current[each.uid or each.id] = each
        for each in current.values():
            if each.pod in enrolled:
                continue
            try:
                rows.append(row_of(await client.sandbox(each.id), self._manager))
            except RuntimeFailed as error:  # it ended while it was looked at
                _log.debug("%s is not listed: %s", each.pod, error)
        return sorted(rows, key=lambda row: str(row["pod"]))

    async def _find(self, pod: str | None, uid: str | None, container: str | None) -> PodSandbox | str:
        """Return the one sandbox that was asked for, or why it is not had; empty text without a runtime."""
        client = self.client()
        if client is None:
            asked = pod is None or uid or container
            return (
                "there is no container runtime to ask; name its socket with `zproxy run --cri-endpoint`"
                if asked
                else ""
            )
        try:
            if container is not None:
                found = await client.sandbox(await client.sandbox_of(container))
                is_other = pod is not None and found.pod != pod
                return f"container {container} is of pod {found.pod}, not of {pod}" if is_other else found
            listed = [
                each
                for each in await client.sandboxes()
                if (pod is None or each.pod == pod) and (uid is None or each.uid == uid)
            ]
            wanted = pod or f"the pod with uid {uid}"
            chosen = choose(listed, wanted)
            if isinstance(chosen, Brief):
                return await client.sandbox(chosen.id)
        except RuntimeFailed as error:
            return str(error)
        return chosen or f"the container runtime at {client.endpoint} has no pod {_words(pod, uid)}"


def place(found: PodSandbox) -> str:
    """Return a path to the sandbox's namespace that can be opened here; raise EnrollError for none.

    The runtime's own is better: it names the same namespace for as long as it is there. In a container it may
    be an ordinary file, under which the runtime's mount is not seen.
    """
    paths = [found.netns] if found.netns else []
    if found.pid is not None:
        paths.append(f"/proc/{found.pid}/ns/net")
    for path in paths:
        with suppress(OSError), Netns.open(path):
            return path
    raise EnrollError(
        f"the network namespace of {found.pod}, {' or '.join(paths)}, is not seen from here: in a container "
        "zproxy needs the host's /run/netns (mountPropagation: HostToContainer) or its processes (hostPID)"
    )


def _words(pod: str | None, uid: str | None) -> str:
    return " ".join(word for word in (pod, f"with uid {uid}" if uid else "") if word)


def _named(pod: str | None) -> str:
    if pod is None:
        raise EnrollError(
            "which pod? write NAMESPACE/NAME, or --pod-uid or --container without --netns or --pid"
        )
    return pod
