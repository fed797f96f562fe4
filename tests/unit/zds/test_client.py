"""The ZDS client against an istio-cni that the test plays, and pods that are only counted."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.istio_cni import IstioCni, istio_cni
from tests.support.nodes import wait_for
from tests.support.steering import open_files
from zproxy.errors import EnrollError
from zproxy.net.tasks import spawn
from zproxy.zds import channel, client, wire
from zproxy.zds.client import ZdsClient
from zproxy.zds.wire import Ack, Add, Delete, Keep, SnapshotSent, WorkloadInfo

PORT = "port 15008 is in use inside the pod"
INFO = WorkloadInfo("client", "demo", "sa")


class Enrolled:
    """Stands for the node: keeps who is enrolled, in which file."""

    def __init__(self) -> None:
        self.pods: dict[str, tuple[tuple[str, str, str], int]] = {}
        self.faults: dict[str, Exception] = {}
        """Who cannot be taken, or released."""
        self.calls: list[tuple[str, str]] = []
        self.stuck: dict[str, asyncio.Event] = {}
        """Whose enrolment waits."""

    async def take(self, uid: str, pod: tuple[str, str, str], fd: int) -> None:
        try:
            self.calls.append(("take", uid))
            if uid in self.stuck:
                await self.stuck[uid].wait()
            if uid in self.faults:
                raise self.faults[uid]
            self.pods[uid] = (pod, os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    async def release(self, uid: str) -> None:
        self.calls.append(("release", uid))
        if uid in self.faults:
            raise self.faults[uid]
        self.pods.pop(uid, None)

    async def known(self) -> list[str]:
        return list(self.pods)


class Scene:
    """`run` runs the client while a script plays istio-cni in another thread."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "zds.sock"
        self.pods = Enrolled()
        self.client = ZdsClient(str(self.path), self.pods)
        self.loop: asyncio.AbstractEventLoop

    def run(self, script: Callable[[], Any]) -> Any:
        async def go() -> Any:
            self.loop = asyncio.get_running_loop()
            task = spawn(self.client.run(), "client")
            try:
                return await asyncio.to_thread(script)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        return asyncio.run(go())

    def play(self, script: Callable[[IstioCni], Any], *, begin: bool = True) -> Any:
        with istio_cni(self.path) as cni:

            def go() -> Any:
                cni.accept()
                if begin:
                    assert cni.snapshot() == Ack()
                return script(cni)

            return self.run(go)

    def status(self) -> dict[str, Any]:
        return self.client.status()

    def is_ready(self) -> bool:
        return bool(self.status()["ready"])


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Nothing is open afterwards that was not before."""
    monkeypatch.setattr(client, "RETRY_S", 0.02)
    before = open_files()
    yield Scene(tmp_path)
    assert open_files() == before


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "netns").open("w") as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "another").open("w") as made:
        yield made


def test_an_added_pod_is_taken_by_its_descriptor(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        assert cni.add("uid-0", "demo/client", file.fileno(), "sa") == Ack()

    scene.play(script, begin=False)
    inode = os.fstat(file.fileno()).st_ino
    assert scene.pods.pods == {"uid-0": (("demo", "client", "sa"), inode)}


def test_a_deleted_pod_is_let_go_and_one_that_nobody_knows_too(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        assert cni.add("uid-0", "demo/client", file.fileno()) == Ack()
        assert cni.delete("uid-0") == Ack()
        assert cni.delete("uid-0") == Ack()

    scene.play(script)
    assert scene.pods.pods == {}


def test_ready_needs_the_snapshot(scene: Scene) -> None:
    def script(cni: IstioCni) -> list[bool]:
        before = scene.is_ready()
        assert cni.snapshot() == Ack()
        during = scene.is_ready()
        cni.close()
        wait_for(lambda: not scene.status()["connected"], "the end is noticed")
        return [before, during, scene.is_ready()]

    assert scene.play(script, begin=False) == [False, True, False]


def test_who_is_not_in_the_snapshot_is_let_go(file: Any, scene: Scene) -> None:
    scene.pods.pods = dict.fromkeys(("added", "kept", "gone"), (("", "", ""), 0))

    def script(cni: IstioCni) -> None:
        cni.add("added", "demo/client", file.fileno())
        assert cni.keep("kept") == Ack()
        assert cni.snapshot() == Ack()

    scene.play(script, begin=False)
    assert sorted(scene.pods.pods) == ["added", "kept"]


def test_one_that_cannot_be_let_go_does_not_hold_the_others(scene: Scene) -> None:
    scene.pods.pods = dict.fromkeys(("a", "b"), (("", "", ""), 0))
    scene.pods.faults = {"a": EnrollError("it clings")}
    answer = scene.play(lambda cni: cni.snapshot(), begin=False)
    assert answer == Ack("a: it clings")
    assert list(scene.pods.pods) == ["a"]


def test_a_pod_that_cannot_be_taken_is_pending_and_tried_again(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        scene.pods.faults = {"uid-0": EnrollError(PORT)}
        assert cni.add("uid-0", "demo/client", file.fileno()) == Ack(PORT)
        assert not scene.is_ready()
        assert scene.status()["pending"] == [{"uid": "uid-0", "pod": "demo/client", "reason": PORT}]
        assert cni.delete("other") == Ack(), "the connection stands"
        wait_for(lambda: scene.pods.calls.count(("take", "uid-0")) >= 3, "it is tried again and again")
        scene.pods.faults = {}
        wait_for(scene.is_ready, "it is taken")

    scene.play(script)
    assert list(scene.pods.pods) == ["uid-0"]


def test_added_again_while_pending_the_last_descriptor_counts(
    file: Any, other: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(cni: IstioCni) -> None:
        scene.pods.faults = {"uid-0": EnrollError(PORT)}
        cni.add("uid-0", "demo/client", file.fileno())
        cni.add("uid-0", "demo/client", other.fileno())
        scene.pods.faults = {}
        wait_for(scene.is_ready, "it is taken")

    scene.play(script)
    assert scene.pods.pods["uid-0"][1] == os.fstat(other.fileno()).st_ino


def test_added_again_while_pending_it_may_be_taken_at_once(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        scene.pods.faults = {"uid-0": EnrollError(PORT)}
        cni.add("uid-0", "demo/client", file.fileno())
        scene.pods.faults = {}
        assert cni.add("uid-0", "demo/client", file.fileno()) == Ack()
        assert scene.is_ready()

    scene.play(script)


def test_deleted_while_pending_it_is_not_tried_again(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        scene.pods.faults = {"uid-0": EnrollError(PORT)}
        cni.add("uid-0", "demo/client", file.fileno())
        scene.pods.faults = {}
        cni.delete("uid-0")
        assert scene.is_ready()
        cni.add("uid-1", "demo/other", file.fileno())

    scene.play(script)
    assert list(scene.pods.pods) == ["uid-1"]


def test_a_new_connection_keeps_those_that_run_and_forgets_what_was_pending(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        cni.add("runs", "demo/client", file.fileno())
        scene.pods.faults = {"fails": EnrollError(PORT)}
        cni.add("fails", "demo/other", file.fileno())
        cni.hang_up()
        cni.accept()
        assert scene.status()["pending"] == []
        assert not scene.is_ready()
        cni.keep("runs")
        cni.snapshot()
        assert scene.is_ready()

    scene.play(script)
    assert list(scene.pods.pods) == ["runs"]
    assert ("release", "runs") not in scene.pods.calls


@pytest.mark.parametrize(
    ("request_", "fds", "says"),
    [
        (Add("uid-0", INFO), 0, "Add comes with 1 descriptors, not 0"),
        (Add("uid-0", INFO), 2, "Add comes with 1 descriptors, not 2"),
        (Add("uid-0"), 1, "a pod without workload_info: uid-0"),
        (Add("", INFO), 1, "a pod without a uid"),
        (Delete("uid-0"), 1, "Delete comes with 0 descriptors, not 1"),
        (Keep("uid-0"), 1, "Keep comes with 0 descriptors, not 1"),
        (SnapshotSent(), 1, "SnapshotSent comes with 0 descriptors, not 1"),
        (SnapshotSent(), 0, "a second end of the snapshot"),
        (Keep("uid-0"), 0, "a pod to keep, after the snapshot"),
        (b"\xff" * 11, 0, "a number of more than 64 bits"),
        (b"\x22\x00", 1, "a request that asks for nothing"),
        (bytes(1025), 1, "a packet of more than 1024 bytes"),
    ],
)
def test_what_makes_no_sense_is_answered_and_ends_the_connection_and_nothing_else(
    file: Any, scene: Scene, request_: wire.Request | bytes, fds: int, says: str
) -> None:
    def script(cni: IstioCni) -> None:
        cni.add("runs", "demo/client", file.fileno())
        assert cni.ask(request_, [file.fileno()] * fds) == Ack(f"protocol error: {says}")
        assert cni.is_closed()
        cni.accept()
        assert cni.keep("runs") == Ack()
        assert cni.snapshot() == Ack()
        assert scene.is_ready()

    scene.play(script)
    assert list(scene.pods.pods) == ["runs"]


def test_a_fault_is_logged_once_until_it_is_another(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.01)
    with caplog.at_level(logging.INFO, "zproxy.zds"):

        def script() -> None:
            wait_for(lambda: scene.status()["fault"].startswith("cannot connect"), "nobody is there")
            with istio_cni(scene.path) as cni:
                cni.accept()

        scene.run(script)
    lines = [record.message for record in caplog.records]
    assert len([line for line in lines if "cannot connect: No such file" in line]) <= 2
    assert f"connected to {scene.path}" in lines


def test_connections_are_tried_less_and_less_often(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    enough = threading.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) >= 14:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(client, "uniform", lambda low, high: high)
    scene.run(lambda: enough.wait(10))
    assert waits[:3] == pytest.approx([0.012, 0.024, 0.048])
    assert waits[-1] == pytest.approx(18.0)


def test_what_takes_too_long_is_answered_in_time_and_goes_on(
    file: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.02)

    def script(cni: IstioCni) -> None:
        scene.pods.stuck["slow"] = asyncio.Event()
        assert cni.add("slow", "demo/client", file.fileno()) == Ack("it takes long, and is still under way")
        assert not scene.is_ready()
        assert cni.delete("other") == Ack()
        scene.loop.call_soon_threadsafe(scene.pods.stuck["slow"].set)
        wait_for(scene.is_ready, "it is taken")
        assert scene.pods.calls.count(("take", "slow")) == 1

    scene.play(script)
    assert list(scene.pods.pods) == ["slow"]


def test_what_is_under_way_when_the_daemon_ends_is_waited_for(
    file: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.02)

    def script(cni: IstioCni) -> None:
        scene.pods.stuck["slow"] = asyncio.Event()
        cni.add("slow", "demo/client", file.fileno())
        scene.loop.call_soon_threadsafe(scene.loop.call_later, 0.05, scene.pods.stuck["slow"].set)

    scene.play(script)
    assert list(scene.pods.pods) == ["slow"]


def test_an_error_of_our_own_is_an_answer_and_a_traceback(
    file: Any, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def script(cni: IstioCni) -> None:
        scene.pods.faults = {"uid-0": ZeroDivisionError("oh")}
        assert cni.add("uid-0", "demo/client", file.fileno()) == Ack("internal error: oh")
        cni.delete("uid-1")

    scene.play(script)
    assert any(record.exc_info for record in caplog.records)


def test_requests_that_come_all_at_once_are_answered_in_order(file: Any, scene: Scene) -> None:
    def script(cni: IstioCni) -> None:
        for number in range(8):
            scene.pods.faults[f"bad-{number}"] = EnrollError(str(number))
        for number in range(8):
            cni.send(Add(f"bad-{number}", INFO), [file.fileno()])
            cni.send(Delete(f"good-{number}"))
        for number in range(8):
            assert cni.answer() == Ack(str(number))
            assert cni.answer() == Ack()

    scene.play(script)


def test_who_reads_no_answers_loses_the_connection(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SEND_S", 0.02)

    def script(cni: IstioCni) -> None:
        assert cni.sock is not None
        cni.sock.setblocking(False)

        def flood() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    cni.send(Delete("uid"))
            return bool(scene.status()["fault"])

        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wait_for(flood, "it is given up")
        wait_for(lambda: "does not read" in scene.status()["fault"], "the reason is told")
        cni.accept()

    scene.play(script)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_whatever_is_sent_the_client_comes_back(scene: Scene, file: Any, packets: list[bytes]) -> None:
    def script(cni: IstioCni) -> None:
        for packet in packets:
            with contextlib.suppress(OSError, wire.WireError):
                cni.ask(packet, [file.fileno()])
                continue
            cni.accept()
        cni.hang_up()
        cni.accept()
        assert cni.snapshot() == Ack()

    scene.play(script, begin=False)
