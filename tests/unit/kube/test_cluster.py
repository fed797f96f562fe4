"""All kinds together: nothing before everything is heard, one sign for a burst, and what 5,000 pods cost."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from tests.support.apiserver import ApiServer, Fault, api_server
from tests.support.big_cluster import BigCluster, big_cluster
from tests.support.informed import until
from tests.support.kubeobjects import kube_pod
from zproxy.kube.api import KubeApi
from zproxy.kube.cluster import Cluster
from zproxy.kube.translate import Place
from zproxy.net.tasks import in_thread, spawn
from zproxy.node.process import calm_collector
from zproxy.sources.pace import Pace, hurry
from zproxy.state.store import Change, Mesh, Records

HERE = Place("node-a", "cluster.local")
Signs = list[float]


def clustered(
    server: ApiServer, directory: Path, scenario: Callable[[Cluster, Signs], Awaitable[None]]
) -> None:
    """Run a cluster and, beside it, `scenario`."""

    async def go() -> None:
        signs: Signs = []
        api = KubeApi(server.kubeconfig(directory / "kubeconfig"))
        cluster = Cluster(api, HERE, lambda: signs.append(perf_counter()))
        task = spawn(cluster.run(), "cluster")
        try:
            await scenario(cluster, signs)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await api.close()

    asyncio.run(go())


def test_nothing_is_told_before_everything_is_heard(tmp_path: Path) -> None:
    with api_server() as server:
        server.put("pods", kube_pod("demo/web", "10.0.0.1"))
        server.break_next("list", Fault.BROKEN, *([Fault.NONE] * 4))

        async def scenario(cluster: Cluster, signs: Signs) -> None:
            assert cluster.reading()(hurry) == Records()
            await until(lambda: signs)
            assert cluster.is_synced
            assert len(signs) == 1
            assert [each.name for each in cluster.reading()(hurry).workloads] == ["web"]

        clustered(server, tmp_path, scenario)


def test_a_burst_is_few_signs(tmp_path: Path) -> None:
    with api_server() as server:

        async def scenario(cluster: Cluster, signs: Signs) -> None:
            await until(lambda: server.watching == 5 and signs)
            before = len(signs)
            for number in range(1000):
                server.put("pods", kube_pod(f"demo/web-{number}", f"10.1.{number // 250}.{number % 250}"))
            await until(lambda: len(cluster.snapshot().pods) == 1000)
            await until(lambda: len(signs) > before)
            assert len(signs) - before < 40

        clustered(server, tmp_path, scenario)


def test_a_snapshot_does_not_change(tmp_path: Path) -> None:
    with api_server() as server:
        server.put("pods", kube_pod("demo/web", "10.0.0.1"))

        async def scenario(cluster: Cluster, signs: Signs) -> None:
            await until(lambda: signs)
            reading = cluster.reading()
            server.delete("pods", "demo/web")
            await until(lambda: not cluster.snapshot().pods)
            assert [each.name for each in reading(hurry).workloads] == ["web"]

        clustered(server, tmp_path, scenario)


class Stalls:
    """How long a loop, and another thread that had work to do, were kept from going on."""

    def __init__(self) -> None:
        self._loop: list[float] = []
        self._thread: list[float] = []
        self._stops = threading.Event()

    async def measure(self) -> None:
        thread = threading.Thread(target=self._measure_thread)
        thread.start()
        try:
            while True:
                began = perf_counter()
                await asyncio.sleep(0.001)
                self._loop.append(perf_counter() - began - 0.001)
        finally:
            self._stops.set()
            thread.join()

    def _measure_thread(self) -> None:
        while not self._stops.is_set():
            began = perf_counter()
            time.sleep(0.001)
            self._thread.append(perf_counter() - began - 0.001)

    def read(self) -> dict[str, float]:
        """Return the figures since the last time, in milliseconds."""
        figures = {}
        for who, found in (("loop", self._loop), ("thread", self._thread)):
            ordered = sorted(found) or [0.0]
            figures[f"{who} p99"] = round(ordered[int(len(ordered) * 0.99)] * 1e3, 1)
            figures[f"{who} worst"] = round(ordered[-1] * 1e3, 1)
            found.clear()
        return figures


def memory_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


@pytest.fixture
def collector() -> Iterator[None]:
    """The cycle collector as a daemon has it."""
    thresholds = gc.get_threshold()
    calm_collector()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("collector")
def test_five_thousand_pods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures go to the terminal; the bounds are generous, since other tests run beside this one."""
    report: dict[str, Any] = {}

    async def go(big: BigCluster) -> None:
        signs: Signs = []
        stalls = Stalls()
        api = KubeApi(big.kubeconfig)
        await api.open()
        before = memory_kib()
        measuring = spawn(stalls.measure(), "stalls")
        cluster = Cluster(api, HERE, lambda: signs.append(perf_counter()))
        began = perf_counter()
        task = spawn(cluster.run(), "cluster")
        try:
            await until(lambda: signs)
            report["first list"] = {"seconds": round(signs[0] - began, 2), **stalls.read()}
            report["kept"] = {"MiB": (memory_kib() - before) >> 10}
            stalls.read()
            mesh = await told(cluster, Mesh.of(), report, "first mesh")
            report["first mesh"] |= stalls.read()
            assert (len(mesh.workloads), len(mesh.services)) == (5000, 500)
            assert all(len(mesh.endpoints(each.key)) == 10 for each in mesh.services)

            began = perf_counter()
            await in_thread(lambda: big.do("touch"))
            await until(lambda: not any(pod.is_ready for pod in cluster.snapshot().pods.values()))
            report["5,000 events"] = {
                "seconds": round(perf_counter() - began, 2),
                "signs": len(signs),
                **stalls.read(),
            }
            mesh = await told(cluster, mesh, report, "mesh after them")
            report["mesh after them"] |= stalls.read()

            began = perf_counter()
            await in_thread(lambda: big.do("lose"))
            await until(lambda: len(cluster.snapshot().pods) == 4999)
            report["resync"] = {"seconds": round(perf_counter() - began, 2), **stalls.read()}
            report["kept at last"] = {"MiB": (memory_kib() - before) >> 10}
        finally:
            for each in (task, measuring):
                each.cancel()
            await asyncio.gather(task, measuring, return_exceptions=True)
            await api.close()

    with big_cluster(tmp_path) as big:
        asyncio.run(go(big))
    with capsys.disabled():
        for what, figures in report.items():
            line = ", ".join(f"{name} {value}" for name, value in figures.items())
            sys.stdout.write(f"\n  {what}: {line}")
    assert report["first list"]["seconds"] < 30
    assert report["resync"]["seconds"] < 40
    assert report["kept"]["MiB"] < 60
    assert report["kept at last"]["MiB"] < 80
    assert max(figures.get("loop p99", 0) for figures in report.values()) < 50
    assert max(figures.get("loop worst", 0) for figures in report.values()) < 500


async def told(cluster: Cluster, former: Mesh, report: dict[str, Any], name: str) -> Mesh:
    """Make the mesh of what is known now, as a daemon does."""
    reading, began = cluster.reading(), perf_counter()
    records = await in_thread(lambda: reading(Pace()))
    made = perf_counter()
    mesh = await in_thread(lambda: former.changed(Change.to(records, former)))
    report[name] = {"records s": round(made - began, 2), "mesh s": round(perf_counter() - made, 2)}
    return mesh
