"""Pods of a runtime are enrolled by name, uid or container, and whatever speaks against it is a sentence."""

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.runtime import FakeManager, FakeRuntime, sandbox
from zproxy.errors import EnrollError, RuntimeFailed
from zproxy.model.pod import PodOptions
from zproxy.node.manager import Manager
from zproxy.node.records import Origin, Record
from zproxy.node.runtime import RuntimePods, place

HERE = "/proc/self/ns/net"
WEB = sandbox("shop/web", netns=HERE)


class Stage:
    """A manager and a runtime that has `listed`; without `listed` there is no runtime."""

    def __init__(self, *listed: Any, wish: str = "/run/fake.sock") -> None:
        self.manager = FakeManager()
        self.runtime = FakeRuntime(*listed)
        self.connected: list[Path] = []
        self.pods = RuntimePods(cast("Manager", self.manager), self._connect, wish)

    def _connect(self, path: Path) -> Any:
        self.connected.append(path)
        return self.runtime

    def enroll(self, pod: str | None = "shop/web", **how: Any) -> dict[str, Any]:
        return asyncio.run(self.pods.enroll(pod, **how))

    def refused(self, pod: str | None = "shop/web", **how: Any) -> str:
        with pytest.raises(EnrollError) as caught:
            self.enroll(pod, **how)
        return str(caught.value)

    @property
    def asked(self) -> dict[str, Any]:
        """What the manager was told the last time."""
        told: dict[str, Any] = self.manager.calls[-1]
        return told


def test_a_pod_is_enrolled_where_the_runtime_says_that_it_is() -> None:
    stage = Stage(sandbox("shop/other"), WEB)
    told: list[bool] = []
    stage.pods.on_taken = lambda: told.append(True)
    stage.enroll(service_account="web", options={"dns": False}, cgroup="/own")
    assert stage.asked == {
        "pod": "shop/web",
        "netns": HERE,
        "pid": None,
        "service_account": "web",
        "options": {"dns": False},
        "cgroup": "/own",
        "origin": Origin("uid-web", "id-web"),
    }
    assert told == [True]


def test_the_default_account_is_a_warning_and_a_given_one_is_not() -> None:
    stage = Stage(WEB)
    (warning,) = stage.enroll()["warnings"]
    assert warning.startswith("shop/web has the identity of service account default")
    assert stage.enroll(service_account="web")["warnings"] == []


@pytest.mark.parametrize("how", [{"netns": "web"}, {"pid": 7}])
def test_who_says_where_the_pod_is_asks_no_runtime(how: dict[str, Any]) -> None:
    stage = Stage(WEB)
    stage.enroll(**how)
    assert stage.connected == []
    assert {key: stage.asked[key] for key in how} == how
    assert stage.asked["origin"] == Origin()


def test_both_ways_at_once_are_refused() -> None:
    assert "give neither --netns nor --pid" in Stage(WEB).refused(netns="web", pod_uid="uid-web")


def test_a_pod_that_no_runtime_has_is_the_namespace_of_its_name() -> None:
    for stage in (Stage(sandbox("shop/other")), Stage(wish="none")):
        stage.enroll()
        assert (stage.asked["netns"], stage.asked["origin"]) == (None, Origin())


def test_neither_runtime_nor_namespace_names_both() -> None:
    stage = Stage(sandbox("shop/other"))
    stage.manager.failures["shop/web"] = EnrollError("no network namespace shop-web")
    assert stage.refused() == (
        "no network namespace shop-web; and the container runtime at /run/fake.sock has no pod shop/web"
    )
    without = Stage(wish="none")
    without.manager.failures["shop/web"] = EnrollError("no network namespace shop-web")
    assert without.refused() == "no network namespace shop-web"


def test_a_runtime_that_is_away_does_not_keep_namespaces_out() -> None:
    stage = Stage(WEB)
    stage.runtime.failure = RuntimeFailed("it cannot be reached")
    stage.enroll()
    assert stage.asked["netns"] is None
    assert stage.refused(pod_uid="uid-web") == "it cannot be reached"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"is_host_network": True}, "hostNetwork"),
        ({"handler": "kata"}, "runs under kata"),
        ({"is_ready": False}, "not ready"),
        ({"netns": "/proc/version", "pid": None}, "/proc/version, is not seen from here"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(fields: dict[str, Any], sentence: str) -> None:
    stage = Stage(sandbox("shop/web", **fields))
    stage.manager.failures["shop/web"] = EnrollError("no namespace")
    assert sentence in stage.refused()
    assert stage.manager.calls == []


def test_of_several_the_uid_chooses() -> None:
    stage = Stage(*(sandbox("shop/web", f"id-{uid}", uid=uid, netns=HERE) for uid in ("u1", "u2")))
    stage.manager.failures["shop/web"] = EnrollError("no namespace")
    assert "choose with --pod-uid" in stage.refused()
    stage.manager.failures.clear()
    stage.enroll(pod_uid="u2")
    assert stage.asked["origin"] == Origin("u2", "id-u2")
    stage.enroll(None, pod_uid="u1")
    assert (stage.asked["pod"], stage.asked["origin"]) == ("shop/web", Origin("u1", "id-u1"))
    assert stage.refused(pod_uid="u3") == (
        "the container runtime at /run/fake.sock has no pod shop/web with uid u3"
    )


def test_a_container_names_its_pod() -> None:
    stage = Stage(WEB)
    stage.runtime.containers["c0ff"] = "id-web"
    stage.enroll(None, container="c0ff")
    assert stage.asked["pod"] == "shop/web"
    assert stage.refused("shop/db", container="c0ff") == "container c0ff is of pod shop/web, not of shop/db"
    assert stage.refused(container="dead") == "no container dead"


def test_without_runtime_uid_and_container_name_nothing() -> None:
    assert "there is no container runtime to ask" in Stage(wish="none").refused(pod_uid="u1")
    assert "there is no container runtime to ask" in Stage(wish="none").refused(None, container="c0ff")


def test_nothing_names_no_pod() -> None:
    assert "which pod?" in Stage(wish="none").refused(None, pid=7)


def test_the_connection_is_made_once_and_closed() -> None:
    stage = Stage(WEB)
    stage.enroll()
    stage.enroll()
    asyncio.run(stage.pods.close())
    assert stage.connected == [Path("/run/fake.sock")]
    assert stage.runtime.is_closed


def test_a_process_leads_there_where_the_runtimes_path_is_not_seen() -> None:
    own = os.getpid()
    assert place(sandbox("shop/web", netns=HERE, pid=own)) == HERE
    for netns in ("/proc/version", "/proc/self/nothing", ""):
        assert place(sandbox("shop/web", netns=netns, pid=own)) == f"/proc/{own}/ns/net"


def test_a_pod_is_enrolled_again_as_it_was() -> None:
    stage = Stage(WEB)
    record = Record(
        "shop/web", "/gone", 1, "web", {}, PodOptions(dns=False), "/old", origin=Origin("uid-web", "old")
    )
    asyncio.run(stage.pods.again(record, "id-web"))
    assert stage.asked["options"] == PodOptions(dns=False).as_json()
    assert (stage.asked["service_account"], stage.asked["cgroup"]) == ("web", None)
    assert stage.asked["origin"] == Origin("uid-web", "id-web")


def test_all_pods_are_listed_once_and_the_newest_sandbox_counts() -> None:
    old = sandbox("shop/web", "old", is_ready=False, created=1)
    done = [sandbox("shop/job", f"j{n}", is_ready=False, created=n) for n in (2, 1)]
    stage = Stage(WEB, old, *done, sandbox("shop/mine"))
    stage.manager.pods["shop/mine"] = object()
    rows = asyncio.run(stage.pods.candidates())
    assert [(row["pod"], row["state"]) for row in rows] == [
        ("shop/job", "ended"),
        ("shop/mine", "enrolled"),
        ("shop/web", "ready"),
    ]
    assert rows[0]["sandbox"] == "j2"


def test_without_runtime_the_enrolled_pods_are_all() -> None:
    stage = Stage(wish="none")
    stage.manager.pods["shop/mine"] = object()
    assert [row["pod"] for row in asyncio.run(stage.pods.candidates())] == ["shop/mine"]
