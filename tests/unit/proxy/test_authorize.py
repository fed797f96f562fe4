"""Verdicts of policy: decided once per source, target and snapshot, and obeyed by 15008 and 15006."""

import logging
import socket
from collections.abc import Iterator

import pytest

from tests.support.mesh import mesh, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.policy import Authorization
from zproxy.observe.metrics import families
from zproxy.proxy.authorize import POLICIES_COUNTED, VERDICTS_CACHED
from zproxy.state.policy import ALLOWED, Attempt, Verdict
from zproxy.state.store import Change, Mesh
from zproxy.state.trace import Trace

SENTENCE = "connection closed due to policy rejection: explicitly denied by: demo/no"


class Policy:
    """Counts what it is asked; denies when told to."""

    def __init__(self) -> None:
        self.asked: list[Attempt] = []
        self.verdict = ALLOWED

    def decide(self, mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
        self.asked.append(attempt)
        return self.verdict


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


@pytest.fixture
def policy(plane: Plane) -> Policy:
    made = Policy()
    plane.decide = made.decide
    return made


def test_a_denied_connect_is_401_with_a_line_and_a_counter(plane: Plane, policy: Policy) -> None:
    policy.verdict = Verdict(False, "explicitly denied by: demo/no")
    app = plane.serve()
    near = plane.dial()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    records = {record.direction: record for record in plane.ended(2)}
    inbound, outbound = records[Direction.INBOUND], records[Direction.OUTBOUND]
    assert (inbound.error, inbound.reason) == (SENTENCE, "DENY")
    assert (outbound.error, outbound.reason) == ("http status: 401", "PEER_DENY")
    assert inbound.peers is not None, "the whole story is known: no early deny"
    assert plane.connections.totals.failures[Direction.INBOUND, "DENY"] == 1
    assert plane.connections.totals.early == {}
    app.setblocking(False)
    with pytest.raises(BlockingIOError):
        app.accept()


def test_a_denied_plain_connection_is_reset_with_a_line_and_a_counter(plane: Plane, policy: Policy) -> None:
    policy.verdict = Verdict(False, "explicitly denied by: demo/no")
    near = plane.keep(socket.create_connection((SERVER_IP, plane.plaintext_port)))
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = plane.ended(1)[0]
    assert (record.error, record.reason) == (SENTENCE, "DENY")
    assert plane.connections.totals.failures == {(Direction.INBOUND, "DENY"): 1}
    assert plane.server.sockets.sources == []  # type: ignore[attr-defined] # the app was not dialled


def test_policy_sees_the_proven_identity_the_true_source_and_the_real_target(
    plane: Plane, policy: Policy
) -> None:
    plane.pair(8080)
    (attempt,) = policy.asked
    assert attempt == Attempt(
        plane.server.workload, plane.client.identity, CLIENT_IP, Endpoint(SERVER_IP, 8080)
    )


def test_a_verdict_is_decided_once_per_target_and_again_for_another_mesh(
    plane: Plane, policy: Policy
) -> None:
    for port in (8080, 8080, 8081):
        plane.pair(port)
    assert [attempt.target.port for attempt in policy.asked] == [8080, 8081]
    plane.mesh = mesh(*plane.mesh.workloads)
    plane.pair(8080)
    assert [attempt.target.port for attempt in policy.asked] == [8080, 8081, 8080]


def test_illegal_ports_are_refused_before_policy_is_asked(plane: Plane, policy: Policy) -> None:
    known = plane.mesh
    plane.client.mesh = lambda: known
    with pytest.raises(ConnectionResetError):
        plane.receive(plane.dial(port=15006), 1)
    assert policy.asked == []


def test_verdicts_are_bounded(plane: Plane, policy: Policy) -> None:
    peers = plane.server.peers(Direction.INBOUND, None, plane.server.workload, 80)
    for number in range(VERDICTS_CACHED + 1):
        plane.server.authorize(
            peers, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", Endpoint(SERVER_IP, 80)
        )
    assert len(plane.server.authorize._verdicts) == 1


UNJUDGED = Verdict(False, "policy not understood: demo/odd is odd", "demo/odd", "defect")
TO_APP = Endpoint(SERVER_IP, 80)


def ask(plane: Plane, source_ip: str = "10.0.0.1") -> None:
    peers = plane.server.peers(Direction.INBOUND, None, plane.server.workload, 80)
    plane.server.authorize(peers, source_ip, TO_APP)


def test_a_policy_that_cannot_be_judged_is_named_once_until_policies_change(
    plane: Plane, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    policy.verdict = UNJUDGED
    for number in range(3):
        ask(plane, f"10.0.0.{number}")
    plane.mesh = plane.mesh.changed(Change(workloads=(workload("demo/new", "10.0.0.9"),)))
    ask(plane)
    (record,) = caplog.records
    assert record.getMessage() == (
        "demo/server refuses connections that policy demo/odd should decide about: policy not understood: "
        "demo/odd is odd; mend the policy, or run with --compat ztunnel to pass over it"
    )
    plane.mesh = plane.mesh.changed(Change(policies=(Authorization("odd", "demo", defect="is odd"),)))
    ask(plane)
    assert len(caplog.records) == 2


def test_refusals_by_what_cannot_be_judged_are_counted_by_policy(plane: Plane, policy: Policy) -> None:
    policy.verdict = UNJUDGED
    for _ in range(3):
        ask(plane)
    failures = plane.connections.totals.policy_failures
    assert failures == {("defect", "demo/odd"): 3}
    (family,) = (each for each in families(plane.connections) if each.name == "zproxy_policy_failures")
    assert family.labels == ("cause", "policy")
    assert family.rows == [(("defect", "demo/odd"), 3)]


def test_counters_of_policies_are_bounded(plane: Plane, policy: Policy) -> None:
    for number in range(POLICIES_COUNTED + 2):
        policy.verdict = UNJUDGED._replace(policy=f"demo/{number}")
        ask(plane, f"10.1.{number >> 8}.{number & 255}")
    failures = plane.connections.totals.policy_failures
    assert len(failures) == POLICIES_COUNTED + 1
    assert failures["defect", "others"] == 2


def test_a_dry_run_is_told_and_changes_nothing(
    plane: Plane, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    policy.verdict = Verdict(True, dry_runs=("dry run of demo/new: it would deny",))
    ask(plane)
    ask(plane)
    assert [record.getMessage() for record in caplog.records] == ["dry run of demo/new: it would deny"]
