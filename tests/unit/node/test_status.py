"""Rows of status: what is said about which check, and what to do about it."""

import os
from pathlib import Path

import pytest

from tests.support.netns import pair
from zproxy.errors import RequirementError, ZproxyError
from zproxy.node import status
from zproxy.node.client import Client
from zproxy.node.findings import Finding, Repair, Status
from zproxy.node.present import Known, Site
from zproxy.node.records import Record
from zproxy.node.status import NodeLook, look


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site("node-a", tmp_path / "pins", tmp_path / "run")
    made.records.save(Record("demo/client", "/run/netns/none", 1 << 60, None, {}))
    return made


def test_a_node_without_daemon_and_pins_says_so(site: Site) -> None:
    rows = NodeLook(site, None, "nothing is pinned").node()
    assert [(row["check"], row["status"]) for row in rows] == [("daemon", "missing"), ("pins", "missing")]
    assert rows[0]["remedy"] == "zproxy run --node node-a --config FILE"
    assert "zproxy cleanup --node node-a" in rows[1]["remedy"]


@pytest.mark.root
def test_a_dead_pod_is_summed_up_and_told_in_full(site: Site) -> None:
    seen = NodeLook(site, None, "")
    (pod,) = seen.pods
    (row,) = seen.pod(pod)
    assert (row["check"], row["status"]) == ("namespace", "missing")
    assert f"cookie {1 << 60}" in row["detail"]
    summary = seen.summary(pod)
    assert (summary["pod"], summary["status"]) == ("demo/client", "missing")
    assert summary["detail"] == "1 of 1 checks: namespace"


@pytest.mark.root
def test_a_pod_without_record_and_pins_is_told_how_to_come_back(site: Site) -> None:
    with pair() as (alive, _):
        rows = NodeLook(site, None, "no pins").pod(Known("demo/x", alive.netns.cookie(), None))
    assert [(row["check"], row["status"]) for row in rows] == [
        ("namespace", "ok"),
        ("record", "missing"),
        ("steering", "missing"),
    ]
    assert "`zproxy enroll demo/x` again" in rows[1]["remedy"]


def test_who_repairs_depends_on_the_daemon(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("sysctls", Status.DRIFTED, "x", "", Repair.NETWORK)
    assert "start the daemon" in NodeLook(site, None, "")._row("p", finding)["remedy"]
    monkeypatch.setattr(site, "daemon", os.getpid)
    assert "the daemon repairs it within a minute" in NodeLook(site, None, "")._row("p", finding)["remedy"]


def test_a_pod_that_there_is_not_and_a_user_who_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ZproxyError, match="demo/x is not enrolled on any node"):
        look([], "demo/x")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RequirementError, match="takes root"):
        look(["node-a"], None)


def test_whose_sockets_cannot_be_seen_is_unknown() -> None:
    with open("/dev/null") as file:
        assert status._sockets_of(os.getpid()) is not None
        assert status._target(Path(f"/proc/self/fd/{file.fileno()}")) == "/dev/null"
    assert status._sockets_of(1 << 30) is None
    assert status._target(Path("/proc/self/fd/99999")) == ""


def zds(**figures: object) -> dict[str, object]:
    """Return a daemon's figures; it is ready unless they say otherwise."""
    return {"zds": {"socket": "/s", "connected": True, "ready": True, "fault": "", "pending": []} | figures}


@pytest.mark.parametrize(
    ("answer", "status_", "detail"),
    [
        (zds(), Status.OK, "connected to /s, ready"),
        (zds(ready=False), Status.NOTE, "connected; istio-cni has not named all pods yet"),
        (
            zds(connected=False, ready=False, fault="cannot connect: x"),
            Status.MISSING,
            "not connected: cannot connect: x",
        ),
        (
            zds(ready=False, pending=[{"pod": "demo/x", "reason": "no room"}]),
            Status.DRIFTED,
            "not taken yet, demo/x: no room",
        ),
    ],
)
def test_how_a_daemon_stands_with_istio_cni(answer: dict[str, object], status_: Status, detail: str) -> None:
    (finding,) = status.zds_finding(answer)
    assert (finding.check, finding.status, finding.detail) == ("zds", status_, detail)


def test_a_daemon_that_takes_no_pods_from_istio_cni_has_no_such_row() -> None:
    assert list(status.zds_finding({"pods": 1})) == []


def test_a_daemon_that_does_not_answer_has_no_figures() -> None:
    assert status.figures_of("no-such-node") == {}


def test_pods_that_istio_cni_steers_need_no_pins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "daemon", os.getpid)
    monkeypatch.setattr(Client, "call", lambda _self, _command: {"steering": "external"})
    rows = NodeLook(site, None, "nothing is pinned").node()
    assert [(row["check"], row["status"]) for row in rows] == [("daemon", "ok"), ("steering", "ok")]
