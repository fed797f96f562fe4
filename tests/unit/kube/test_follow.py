"""Source and controller together, against an API server over real HTTP and an enroller that is not there."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.apiserver import ApiServer, api_server
from tests.support.informed import until
from tests.support.kube_world import World
from tests.support.kubeobjects import kube_namespace, kube_pod
from zproxy.errors import ConfigError
from zproxy.kube.api import KubeApi
from zproxy.kube.controller import Found
from zproxy.kube.follow import Following, _find, follow
from zproxy.net.tasks import spawn
from zproxy.sources.pace import hurry
from zproxy.state.store import Mesh

WEB = kube_pod("demo/web", "10.0.0.1", uid="u1")


class Followed:
    """A daemon's part: it takes the mesh when it is told to."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self.server = server
        self.world = World()
        self.world.sandboxes["u1"] = Found(pid=41)
        self.mesh = Mesh.of()
        api = KubeApi(server.kubeconfig(directory / "kubeconfig"))
        self.following = Following(api, self.world.place, self.world, self.world.find, self.take)

    def take(self) -> None:
        self.mesh = Mesh.of(*self.following.reading()(hurry))
        self.following.taken()

    def annotation(self) -> str | None:
        found = self.server.get("pods", "demo/web")["metadata"].get("annotations") or {}
        value = found.get("ambient.istio.io/redirection")
        return None if value is None else str(value)


def followed(directory: Path, scenario: Callable[[Followed], Awaitable[None]]) -> None:
    async def go(server: ApiServer) -> None:
        made = Followed(server, directory)
        await made.following.open()
        task = spawn(made.following.run(), "following")
        try:
            await scenario(made)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with api_server() as server:
        server.put("namespaces", kube_namespace("demo"))
        server.put("pods", WEB)
        asyncio.run(go(server))


def test_a_label_enrols_and_its_end_unenrols(tmp_path: Path) -> None:
    async def scenario(it: Followed) -> None:
        assert await it.following.first(10)
        assert it.world.calls == []
        it.server.put("namespaces", kube_namespace("demo", "ambient"))
        await until(lambda: it.annotation() == "enabled")
        assert it.world.enrolled == {"demo/web": (Found(pid=41), True)}
        it.server.put("namespaces", kube_namespace("demo"))
        await until(lambda: it.annotation() is None)
        assert it.world.enrolled == {}
        (workload,) = it.mesh.workloads
        assert workload.pod == "demo/web"

    followed(tmp_path, scenario)


def test_an_hour_without_the_server_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An hour is many failures in a row: what they do does not depend on how long they take."""
    caplog.set_level(logging.INFO, "zproxy.kube")

    async def scenario(it: Followed) -> None:
        it.server.put("namespaces", kube_namespace("demo", "ambient"))
        await until(lambda: it.annotation() == "enabled")
        descriptors = len(os.listdir("/proc/self/fd"))
        it.server.drop()
        informers = it.following._cluster._informers.values()
        await until(lambda: all(each._failures >= 12 for each in informers))
        assert it.world.enrolled
        assert it.mesh.workloads
        tasks = len(asyncio.all_tasks())
        it.server.put("namespaces", kube_namespace("demo"))
        it.server.put("pods", kube_pod("demo/new", "10.0.0.2", uid="u2"))
        it.server.compact()
        await until(lambda: all(each._failures >= 15 for each in informers))
        assert len(asyncio.all_tasks()) <= tasks
        it.server.start()
        await until(lambda: it.annotation() is None)
        await until(lambda: it.mesh.by_pod("demo/new") is not None)
        assert it.world.enrolled == {}
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zproxy.kube.backoff.LONGEST_S", 0.02)
        followed(tmp_path, scenario)


def test_without_an_answer_the_first_mesh_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def go() -> None:
        world = World()
        with api_server() as server:
            config = server.kubeconfig(tmp_path / "config")
        following = follow(config, "node-a", "cluster.local", world, lambda: None)
        await following.open()
        task = spawn(following.run(), "following")
        following.taken()
        assert not await following.first(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())


def test_a_configuration_that_leads_nowhere_is_told_at_once(tmp_path: Path) -> None:
    following = follow(tmp_path / "none", "node-a", "cluster.local", World(), lambda: None)
    with pytest.raises(ConfigError, match="there is no such file"):
        asyncio.run(following.open())


def test_sandboxes_are_looked_for_in_proc() -> None:
    assert asyncio.run(_find({"no-such-uid"})) == {}


def test_a_daemon_without_kubernetes_does_not_load_the_library() -> None:
    code = "import sys, zproxy.app; sys.exit('aiohttp' in sys.modules or 'kubernetes_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
