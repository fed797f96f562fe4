"""The client of a container runtime: unary calls with a deadline, and its stream of events.

Importing this module loads gRPC, some 20 MB: the daemon does so only when it has something to ask.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio

from zproxy.cri.answers import brief, sandbox
from zproxy.cri.sandbox import Brief, PodSandbox, short
from zproxy.errors import EventsUnsupported, RuntimeFailed
from zproxy.proto import cri_pb2

CALL_S: Final = 5.0
"""For an answer; a runtime that is well takes milliseconds."""
MAX_ANSWER: Final = 16 << 20
"""Bytes, as kubelet has it; a node's list of sandboxes has some hundred thousand."""
_SERVICE: Final = "/runtime.v1.RuntimeService/"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


_Answer = TypeVar("_Answer")


class Runtime(NamedTuple):
    """Who answers at an endpoint."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class RuntimeClient:
    """One channel to one runtime; made and used on one event loop. Every failure is RuntimeFailed."""

    def __init__(self, endpoint: Path) -> None:
        self.endpoint = endpoint
        self._channel = grpc.aio.insecure_channel(f"unix:{endpoint}", options=_OPTIONS)

    async def version(self) -> Runtime:
        """Ask who it is."""
        answer = await self._call("Version", cri_pb2.VersionRequest(), cri_pb2.VersionResponse.FromString)
        return Runtime(answer.runtime_name, answer.runtime_version)

    async def sandboxes(self) -> list[Brief]:
        """Return all sandboxes of the node, those that ended and were not removed yet among them."""
        request = cri_pb2.ListPodSandboxRequest()
        answer = await self._call("ListPodSandbox", request, cri_pb2.ListPodSandboxResponse.FromString)
        return [brief(item) for item in answer.items]

    async def sandbox(self, name: str) -> PodSandbox:
        """Return everything about the sandbox with this id."""
        request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=name, verbose=True)
        read = cri_pb2.PodSandboxStatusResponse.FromString
        return sandbox(await self._call("PodSandboxStatus", request, read, f"sandbox {short(name)}"))

    async def sandbox_of(self, container: str) -> str:
        """Return the id of the sandbox that a container is in; its id may be cut short."""
        request = cri_pb2.ListContainersRequest(filter=cri_pb2.ContainerFilter(id=container))
        answer = await self._call("ListContainers", request, cri_pb2.ListContainersResponse.FromString)
        found = sorted({each.pod_sandbox_id for each in answer.containers})
        if len(found) > 1:
            raise RuntimeFailed(
                f"several pods have containers whose id begins with {container}: give more of it"
            )
        if not found:
            raise RuntimeFailed(
                f"the container runtime at {self.endpoint} has no container {container}; "
                "`crictl ps` lists those that there are"
            )
        return found[0]

    async def events(self) -> AsyncIterator[str]:
        """Yield the id of the container or sandbox of each event, for as long as the runtime serves them.

        Raise EventsUnsupported where there are none, RuntimeFailed when the stream breaks.
        """
        method = self._channel.unary_stream(
            f"{_SERVICE}GetContainerEvents",
            request_serializer=cri_pb2.GetEventsRequest.SerializeToString,
            response_deserializer=cri_pb2.ContainerEventResponse.FromString,
        )
        call = method(cri_pb2.GetEventsRequest())
        try:
            async for event in call:
                yield event.container_id
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise EventsUnsupported(f"the runtime at {self.endpoint} has no events") from error
            raise self._failure(error, "") from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Drop the channel; calls that are under way end."""
        await self._channel.close()

    async def _call(
        self, method: str, request: _Message, read: Callable[[bytes], _Answer], subject: str = ""
    ) -> _Answer:
        call: Any = self._channel.unary_unary(
            _SERVICE + method, request_serializer=_serialized, response_deserializer=read
        )
        try:
            answer: _Answer = await call(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, subject) from error
        return answer

    def _failure(self, error: grpc.aio.AioRpcError, subject: str) -> RuntimeFailed:
        return RuntimeFailed(sentence(self.endpoint, error.code(), error.details() or "", subject))


def sentence(endpoint: Path, code: grpc.StatusCode, details: str, subject: str = "") -> str:
    """Say what a failed call means, and what its likely cause is."""
    whose = f"the container runtime at {endpoint}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"{whose} cannot be reached: does it run, and is this its socket? ({details})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{whose} did not answer within {CALL_S:.0f} s; is it stuck or overloaded?"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"{whose} does not serve CRI runtime.v1: is its CRI plugin disabled (Docker's packages do so, "
            "with disabled_plugins in containerd's config.toml), or is it older than containerd 1.6?"
        )
    if code is grpc.StatusCode.NOT_FOUND:
        return f"{whose} has no {subject or 'such thing'}: it was removed meanwhile"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{whose} answered with more than {MAX_ANSWER >> 20} MiB, or is out of resources: {details}"
    return f"{whose} failed: {details or code.name}"


def _serialized(message: _Message) -> bytes:
    return message.SerializeToString()
