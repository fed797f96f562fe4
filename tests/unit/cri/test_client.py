"""The client against a runtime behind a real socket: answers, failures as sentences, deadlines, events."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.runtime import Method, served
from zproxy.cri import client
from zproxy.cri.client import Runtime, RuntimeClient, sentence
from zproxy.errors import EventsUnsupported, RuntimeFailed
from zproxy.proto import cri_pb2

PATH = Path("/run/containerd/containerd.sock")
WEB = cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="8d1f")


def constant(answer: Any) -> Method:
    async def give(_request: bytes, _context: Any) -> bytes:
        return bytes(answer.SerializeToString())

    return Method(give)


def failing(code: grpc.StatusCode, details: str = "") -> Method:
    async def fail(_request: bytes, context: Any) -> bytes:
        await context.abort(code, details)
        return b""

    return Method(fail)


def ask(
    directory: Path, methods: dict[str, Method], question: Callable[[RuntimeClient], Awaitable[Any]]
) -> Any:
    """Serve, ask, and return the answer."""
    path = directory / "cri.sock"

    async def all_of_it() -> Any:
        async with served(path, methods):
            asking = RuntimeClient(path)
            try:
                return await question(asking)
            finally:
                await asking.close()

    return asyncio.run(all_of_it())


def test_it_says_who_it_is(tmp_path: Path) -> None:
    answer = cri_pb2.VersionResponse(runtime_name="containerd", runtime_version="1.6.20")
    found = ask(tmp_path, {"Version": constant(answer)}, RuntimeClient.version)
    assert found == Runtime("containerd", "1.6.20")
    assert str(found) == "containerd 1.6.20"


def test_sandboxes_are_listed(tmp_path: Path) -> None:
    items = [
        cri_pb2.PodSandbox(id="a", metadata=WEB),
        cri_pb2.PodSandbox(id="b", state=cri_pb2.SANDBOX_NOTREADY),
    ]
    method = constant(cri_pb2.ListPodSandboxResponse(items=items))
    found = ask(tmp_path, {"ListPodSandbox": method}, RuntimeClient.sandboxes)
    assert [(each.id, each.pod, each.is_ready) for each in found] == [
        ("a", "shop/web", True),
        ("b", "/", False),
    ]


def test_a_sandbox_is_asked_for_with_all_that_the_runtime_knows(tmp_path: Path) -> None:
    seen: list[cri_pb2.PodSandboxStatusRequest] = []

    async def give(request: bytes, _context: Any) -> bytes:
        seen.append(cri_pb2.PodSandboxStatusRequest.FromString(request))
        status = cri_pb2.PodSandboxStatus(id="a", metadata=WEB)
        return cri_pb2.PodSandboxStatusResponse(
            status=status, info={"info": '{"pid": 7}'}
        ).SerializeToString()

    found = ask(tmp_path, {"PodSandboxStatus": Method(give)}, lambda asking: asking.sandbox("a"))
    assert (found.pod, found.pid) == ("shop/web", 7)
    assert seen == [cri_pb2.PodSandboxStatusRequest(pod_sandbox_id="a", verbose=True)]


@pytest.mark.parametrize(
    ("sandboxes", "result"),
    [
        (("a",), "a"),
        (("a", "a"), "a"),
        ((), "has no container c0ff"),
        (("a", "b"), "several pods have containers whose id begins with c0ff"),
    ],
)
def test_a_container_leads_to_its_sandbox(tmp_path: Path, sandboxes: tuple[str, ...], result: str) -> None:
    listed = [cri_pb2.Container(id=f"c0ff{n}", pod_sandbox_id=each) for n, each in enumerate(sandboxes)]
    methods = {"ListContainers": constant(cri_pb2.ListContainersResponse(containers=listed))}

    async def question(asking: RuntimeClient) -> str:
        try:
            return await asking.sandbox_of("c0ff")
        except RuntimeFailed as error:
            return str(error)

    assert result in ask(tmp_path, methods, question)


def test_events_come_as_they_happen(tmp_path: Path) -> None:
    async def tell(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for name in ("a", "b"):
            yield cri_pb2.ContainerEventResponse(container_id=name).SerializeToString()

    async def question(asking: RuntimeClient) -> list[str]:
        return [each async for each in asking.events()]

    assert ask(tmp_path, {"GetContainerEvents": Method(tell, is_stream=True)}, question) == ["a", "b"]


def test_a_runtime_without_events_is_told_apart_from_one_that_fails(tmp_path: Path) -> None:
    async def question(asking: RuntimeClient) -> str:
        with pytest.raises(RuntimeFailed) as caught:
            await anext(asking.events())
        return type(caught.value).__name__

    async def fail(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield b""

    assert ask(tmp_path, {}, question) == EventsUnsupported.__name__
    assert (
        ask(tmp_path, {"GetContainerEvents": Method(fail, is_stream=True)}, question)
        == RuntimeFailed.__name__
    )


def test_who_stops_listening_ends_the_stream(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def tell(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield cri_pb2.ContainerEventResponse(container_id="a").SerializeToString()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def question(asking: RuntimeClient) -> None:
        stream = asking.events()
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined] # it is a generator
        await asyncio.wait_for(ended.wait(), 5)

    ask(tmp_path, {"GetContainerEvents": Method(tell, is_stream=True)}, question)


def test_one_that_does_not_answer_in_time_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CALL_S", 0.05)

    async def wait(_request: bytes, _context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    with pytest.raises(RuntimeFailed, match="did not answer within"):
        ask(tmp_path, {"Version": Method(wait)}, RuntimeClient.version)


def test_one_without_the_interface_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match=r"does not serve CRI runtime\.v1: is its CRI plugin disabled"):
        ask(tmp_path, {}, RuntimeClient.version)


def test_a_sandbox_that_went_is_named(tmp_path: Path) -> None:
    methods = {"PodSandboxStatus": failing(grpc.StatusCode.NOT_FOUND, "not found")}
    with pytest.raises(RuntimeFailed, match="has no sandbox 5a9dc0: it was removed meanwhile"):
        ask(tmp_path, methods, lambda asking: asking.sandbox("5a9dc0"))


def test_one_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    async def question() -> None:
        asking = RuntimeClient(tmp_path / "nobody.sock")
        try:
            await asking.version()
        finally:
            await asking.close()

    with pytest.raises(RuntimeFailed, match="cannot be reached: does it run"):
        asyncio.run(question())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "more than 16 MiB"),
        (grpc.StatusCode.INTERNAL, "failed: boom"),
    ],
)
def test_other_failures_keep_what_the_runtime_said(code: grpc.StatusCode, words: str) -> None:
    assert words in sentence(PATH, code, "boom")


def test_a_failure_without_words_has_its_code() -> None:
    assert sentence(PATH, grpc.StatusCode.UNKNOWN, "").endswith("failed: UNKNOWN")


def test_only_the_client_loads_grpc() -> None:
    """The daemon of a machine without a runtime does not pay for it."""
    code = "import sys, zproxy.app; sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
