"""Each finding is said once and counted once, whatever becomes of it."""

import asyncio
import logging

import pytest

from zproxy.node.drift_log import DriftLog
from zproxy.node.findings import Finding, Repair, Status

RULE = Finding("rule IPv4", Status.MISSING, "gone", "", Repair.NETWORK)
LINK = Finding("tcx_ingress-eth0", Status.DRIFTED, "elsewhere", "", Repair.STEERING)
LOOPBACK = Finding("loopback", Status.MISSING, "lo is down", "ip link set lo up")


def counted(log: DriftLog) -> dict[str, dict[tuple[str, ...], int]]:
    return {family.name: dict(family.rows) for family in asyncio.run(log.families())}


def test_what_was_repaired_is_a_warning_with_what_was_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = DriftLog()
    log.report("demo/client", [RULE, LINK], [], "rules set again")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "drift of demo/client, repaired: rule IPv4 missing: gone; rules set again" in caplog.text
    found = counted(log)
    assert found["zproxy_drift_found"] == found["zproxy_drift_repaired"]
    assert found["zproxy_drift_found"] == {("rule IPv4",): 1, ("tcx_ingress",): 1}


def test_what_cannot_be_repaired_is_said_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    log = DriftLog()
    for _ in range(3):
        log.report("demo/client", [LOOPBACK], [LOOPBACK], "")
    assert caplog.text.count("NOT repaired: loopback missing: lo is down; ip link set lo up") == 1
    assert counted(log)["zproxy_drift_found"] == {("loopback",): 1}
    assert counted(log)["zproxy_drift_repaired"] == {}
    log.report("demo/client", [], [], "")
    log.report("demo/client", [LOOPBACK], [LOOPBACK], "")
    assert caplog.text.count("NOT repaired: loopback") == 2, "it was well in between"


def test_what_is_remembered_as_said_is_bounded() -> None:
    log = DriftLog()
    many = [LOOPBACK._replace(check=f"check {number:03}") for number in range(100)]
    log.report("demo/client", many, many, "")
    assert len(log._open["demo/client"]) == 16


def test_the_dead_are_counted_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    log = DriftLog()
    log.report("demo/client", [LOOPBACK], [LOOPBACK], "")
    log.gone("demo/client", "its namespace is gone")
    assert "collected what demo/client left: its namespace is gone" in caplog.text
    assert counted(log)["zproxy_dead_pods_collected"] == {(): 1}
    assert log._open == {}


def test_a_failure_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    DriftLog().failed("demo/client", OSError("no"))
    assert "cannot reconcile demo/client: no" in caplog.text
