"""A container runtime that is not there: in memory for the daemon, and behind a socket for the client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import grpc.aio

from zproxy.cri.sandbox import Brief, PodSandbox
from zproxy.errors import EnrollError, EventsUnsupported, RuntimeFailed
from zproxy.model.pod import PodOptions
from zproxy.node.records import NO_RUNTIME, Origin, Record

Answer = Callable[[bytes, Any], Awaitable[Any]]


def sandbox(pod: str, name: str = "", *, uid: str = "", is_ready: bool = True, **fields: Any) -> PodSandbox:
    """Return a sandbox of `namespace/name`; its id and uid are made of that where they are not given."""
    namespace, _, last = pod.partition("/")
    handler = fields.pop("handler", "")
    created = fields.pop("created", 0)
    brief = Brief(name or f"id-{last}", namespace, last, uid or f"uid-{last}", is_ready, created, handler)
    given: dict[str, Any] = {"netns": f"/run/netns/{last}", "pid": 7} | fields
    return PodSandbox(brief, **given)


class FakeRuntime:
    """What zproxy.node.runtime.Asks asks for. A test changes `listed`, and calls `tell` for an event."""

    def __init__(self, *listed: PodSandbox, has_events: bool = True) -> None:
        self.endpoint = Path("/run/fake.sock")
        self.listed = list(listed)
        self.containers: dict[str, str] = {}
        self.failure: RuntimeFailed | None = None
        self.has_events = has_events
        self.looks = 0
        self.streams = 0
        self.is_closed = False
        self._events: asyncio.Queue[RuntimeFailed | None] = asyncio.Queue()

    def tell(self, failure: RuntimeFailed | None = None) -> None:
        """Send an event, or break the stream."""
        self._events.put_nowait(failure)

    async def sandboxes(self) -> list[Brief]:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return [each.brief for each in self.listed]

    async def sandbox(self, name: str) -> PodSandbox:
        found = next((each for each in self.listed if each.brief.id == name), None)
        if found is None:
            raise RuntimeFailed(f"no sandbox {name}")
        return found

    async def sandbox_of(self, container: str) -> str:
        if container not in self.containers:
            raise RuntimeFailed(f"no container {container}")
        return self.containers[container]

    async def events(self) -> AsyncIterator[str]:
        self.streams += 1
        if not self.has_events:
            raise EventsUnsupported("no events")
        while True:
            failure = await self._events.get()
            if failure is not None:
                raise failure
            yield "something"

    async def close(self) -> None:
        self.is_closed = True


class Method(NamedTuple):
    """What a served runtime does when it is asked: it gets the request's bytes."""

    answer: Callable[..., Any]
    is_stream: bool = False


@asynccontextmanager
async def served(path: Path, methods: dict[str, Method]) -> AsyncIterator[None]:
    """Serve these methods of runtime.v1 at a socket; whatever else is asked for is unimplemented."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        name: (
            grpc.unary_stream_rpc_method_handler if each.is_stream else grpc.unary_unary_rpc_method_handler
        )(each.answer)
        for name, each in methods.items()
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", handlers),)
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


class FakeManager:
    """Enrols whatever it is told; a test sets `failures` and reads `calls`."""

    def __init__(self) -> None:
        self.node = "node-a"
        self.pods: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.failures: dict[str, EnrollError] = {}
        """Pod → why it can not be enrolled."""
        self.on_gone: Callable[[Record], object] = bool

    async def enroll(
        self,
        pod: str,
        netns: str | None = None,
        pid: int | None = None,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
        *,
        origin: Origin = NO_RUNTIME,
    ) -> dict[str, Any]:
        self.check(pod)
        given = {"netns": netns, "pid": pid, "service_account": service_account, "options": options}
        self.calls.append({"pod": pod, "cgroup": cgroup, "origin": origin} | given)
        self.pods[pod] = SimpleNamespace(name=pod, origin=origin)
        return {"pod": pod, "service_account": service_account or "default"}

    def check(self, pod: str) -> None:
        if pod in self.failures:
            raise self.failures[pod]

    def rows(self) -> list[dict[str, Any]]:
        return [{"pod": name, "state": "enrolled"} for name in self.pods]

    def lose(self, pod: str) -> Record:
        """Forget a pod whose namespace is gone, and tell; return its record."""
        lost = self.pods.pop(pod)
        record = Record(pod, "/run/netns/gone", 1, "web", {}, PodOptions(dns=False), "", origin=lost.origin)
        self.on_gone(record)
        return record
