"""The tables of docs/policy.md are what the code does: each row is asked, and no row is left out."""

import re
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.mesh import behind, mesh, service, workload
from tests.support.plane import Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction, flag_of
from zproxy.model.policy import Action, Authorization, Match, PolicyScope, Rule, StringKind, StringMatch
from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress, Service
from zproxy.model.settings import DEFAULT_SETTINGS, Compat, OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Status, Workload
from zproxy.observe.connections import Connection
from zproxy.sources import file
from zproxy.state.policy import Attempt, authorize
from zproxy.state.rbac import Facts, matches
from zproxy.state.recheck import objection
from zproxy.state.resolve import resolve
from zproxy.state.store import Change

DOCUMENT = Path(__file__).parents[1] / "docs" / "policy.md"
Record = Workload | Service | Authorization

CLIENT, SERVER = workload("demo/client", "10.0.0.1"), workload("demo/server", "10.0.0.2")
TO_SERVER, TO_WEB, OUTSIDE = Endpoint("10.0.0.2", 80), Endpoint("10.96.0.1", 80), Endpoint("192.0.2.1", 443)
ANYBODY: tuple[Rule, ...] = ((),)
NOBODY = (((Match(namespaces=(StringMatch(StringKind.EXACT, "elsewhere"),)),),),)
DENY = Authorization("deny", "demo", action=Action.DENY, rules=ANYBODY)
ALLOW = Authorization("allow", "demo", rules=ANYBODY)


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    found = {cells[0]: cells[1:] for cells in documents.rows(DOCUMENT, heading)}
    assert found
    return found


def each_row(heading: str, cases: Mapping[str, object]) -> pytest.MarkDecorator:
    """Parametrize by row: its other cells, and the case of that name."""
    table = rows(heading)
    assert table.keys() == cases.keys(), "every row has a case, and every case a row"
    return pytest.mark.parametrize(
        ("cells", "case"), [pytest.param(table[name], cases[name], id=name) for name in cases]
    )


def is_refused(*policies: Authorization, named: tuple[str, ...] = (), compat: Compat = Compat.ZPROXY) -> bool:
    server = replace(SERVER, authorization_policies=named)
    attempt = Attempt(server, CLIENT.identity, "10.0.0.1", TO_SERVER)
    return not authorize(compat, mesh(CLIENT, server, *policies), attempt).is_allowed


APPLYING = {
    "`Global`": [("elsewhere", ()), ("demo", ())],
    "`Namespace`": [("demo", ())],
    "`WorkloadSelector`": [("demo", ("demo/deny",)), ("elsewhere", ("elsewhere/deny",))],
}


@each_row("## What applies", APPLYING)
def test_scopes(cells: list[str], case: list[tuple[str, tuple[str, ...]]]) -> None:
    scope = next(each for each in PolicyScope if APPLYING[f"`{each.value}`"] is case)
    for namespace in ("demo", "elsewhere"):
        for named in ((), (f"{namespace}/deny",)):
            policy = replace(DENY, namespace=namespace, scope=scope)
            is_named = bool(named)
            assert is_refused(policy, named=named) is (is_named or (namespace, named) in case)


EMPTY: dict[str, tuple[Rule, ...]] = {
    "no rules": (),
    "a rule without clauses": ((),),
    "a clause without matches": (((),),),
    "a match without fields": (((Match(),),),),
}


@each_row("## When a policy matches", EMPTY)
def test_what_is_empty(cells: list[str], case: tuple[Rule, ...]) -> None:
    allow, deny, as_ztunnel = ({"always": True, "never": False}[cell] for cell in cells)
    assert is_refused(replace(ALLOW, rules=case)) is not allow
    assert is_refused(replace(DENY, rules=case)) is deny
    assert is_refused(replace(DENY, rules=case), compat=Compat.ZTUNNEL) is as_ztunnel


@pytest.mark.parametrize("condition", rows("## Who proves nothing"))
def test_who_proves_nothing(condition: str, tmp_path: Path) -> None:
    (outcome,) = rows("## Who proves nothing")[condition]
    (policy,) = read(f"[[[{{{condition.strip('`')}}}]]]", tmp_path)
    facts = Facts.of(None, "10.0.0.1", TO_SERVER)
    assert matches(policy, facts, is_strict=False) is {"match": True, "no match": False}[outcome]


def read(rules: str, directory: Path) -> tuple[Authorization, ...]:
    path = directory / "mesh.yaml"
    policy = f"{{name: p, namespace: demo, scope: Namespace, action: Deny, rules: {rules}}}"
    path.write_text(f"workloads: []\npolicies: [{policy}]\n")
    return file.load(path).policies


def test_every_field_is_explained() -> None:
    explained = {name.strip("`") for name in rows("## Fields")}
    parts = (name.split("_") for name in Match._fields if not name.startswith("not_"))
    assert explained == {first + "".join(map(str.capitalize, rest)) for first, *rest in parts}


UNJUDGED: dict[str, tuple[tuple[Authorization, ...], tuple[str, ...]]] = {
    "a policy that the pod names and the mesh does not have": ((), ("demo/gone",)),
    "a policy that is not understood in full": ((replace(ALLOW, defect="is odd"),), ()),
    "a DENY without rules": ((replace(DENY, rules=()),), ()),
    "a DENY with a match without fields": ((replace(DENY, rules=(((Match(),),),)),), ()),
    "an ALLOW without rules": ((replace(ALLOW, rules=()),), ()),
    "a dry run that is not understood": ((replace(DENY, dry_run=True, defect="is odd"),), ()),
}


@each_row("## What cannot be judged", UNJUDGED)
def test_what_cannot_be_judged(
    cells: list[str], case: tuple[tuple[Authorization, ...], tuple[str, ...]]
) -> None:
    *outcomes, cause = cells
    policies, named = case
    server = replace(SERVER, authorization_policies=named)
    attempt = Attempt(server, CLIENT.identity, "10.0.0.1", TO_SERVER)
    for outcome, compat in zip(outcomes, (Compat.ZPROXY, Compat.ZTUNNEL), strict=True):
        verdict = authorize(compat, mesh(CLIENT, server, *policies), attempt)
        assert verdict.is_allowed is {"refuses": False, "passed over": True}[outcome]
        assert verdict.cause == (cause if cause != "–" and compat is Compat.ZPROXY else "")


Told = Callable[[Connection], str]
SEEN: dict[str, tuple[Direction | None, bool, Told]] = {
    "the client's end": (None, False, str),
    "access log of the pod's node": (Direction.INBOUND, False, lambda record: record.error),
    "access log of the client's node": (Direction.OUTBOUND, False, lambda record: record.error),
    "access log of the pod's node, once a change has ended it": (
        Direction.INBOUND,
        True,
        lambda record: record.error,
    ),
    "access log of the client's node, once a change has ended it": (
        Direction.OUTBOUND,
        True,
        lambda record: record.error,
    ),
    "`istio_tcp_connections_failed_total`": (
        Direction.INBOUND,
        False,
        lambda record: f'response_flags="{flag_of(record.reason).value}"',
    ),
}


@each_row("## What is seen", SEEN)
def test_what_is_seen(cells: list[str], case: tuple[Direction | None, bool, Told]) -> None:
    direction, is_change, told = case
    for cell, is_plain in zip(cells, (False, True), strict=True):
        with closing(Plane()) as plane:
            records = {
                each.direction: each for each in refused(plane, is_plain=is_plain, is_change=is_change)
            }
        if direction is None:
            assert cell.endswith("connection is reset"), "what `refused` waits for"
        elif cell.startswith("nothing"):
            assert direction not in records
        else:
            (words,) = re.findall("`(.+)`", cells[0] if cell == "the same" else cell)
            assert told(records[direction]).startswith(words)


def refused(plane: Plane, *, is_plain: bool, is_change: bool) -> list[Connection]:
    """Have a DENY refuse a connection to the server, before or after it was opened; return its records."""
    plane.decide = partial(authorize, Compat.ZPROXY)
    former, denying = plane.mesh, plane.mesh.changed(Change(policies=(DENY,)))
    app = plane.serve(plane.plaintext_port if is_plain else 8080)
    if not is_change:
        plane.mesh = denying
    if is_plain:
        near = plane.keep(socket.create_connection(("127.0.0.2", plane.plaintext_port)))
    else:
        near = plane.dial()
    if is_change:
        plane.accept(app)
        plane.mesh = denying
        assert not plane.server_straw.on_mesh(former).advance()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    return plane.ended(1 if is_plain else 2)


Outward = tuple[tuple[Record, ...], Endpoint, tuple[Record, ...], Settings]
BY_WAYPOINT = GatewayAddress(NetworkAddress("", "10.0.0.3"))
WAYPOINT = workload("demo/waypoint", "10.0.0.3")
GUIDED = replace(SERVER, waypoint=BY_WAYPOINT)
WEB = service("demo/web.test", "10.96.0.1")
BEHIND = behind(SERVER, WEB)
GATE = service("demo/gate.test", "10.96.0.2", ports={15008: 15008})
GATE_POD = behind(WAYPOINT, GATE)
BY_NAME = replace(SERVER, waypoint=GatewayAddress(NamespacedHostname("demo", "gate.test")))
MORE = behind(workload("demo/more", "10.0.0.4"), WEB)
SELECTED = replace(DENY, name="selected", scope=PolicyScope.WORKLOAD_SELECTOR)
ONLY_MESH = Settings(OutboundPolicy.REGISTRY_ONLY)


def outward(
    before: tuple[Record, ...],
    after: tuple[Record, ...],
    to: Endpoint = TO_SERVER,
    settings: Settings = DEFAULT_SETTINGS,
) -> Outward:
    return before, to, after, settings


CHANGES: dict[str, Outward | tuple[Record, ...]] = {
    "a DENY matches it now": (SERVER, DENY),
    "an ALLOW exists now, and none matches it": (SERVER, replace(ALLOW, rules=NOBODY)),
    "the pod names one more policy, which denies": (
        replace(SERVER, authorization_policies=("demo/selected",)),
        SELECTED,
    ),
    "an ALLOW matches it": (SERVER, ALLOW),
    "the destination's pod left the mesh": outward((SERVER,), ()),
    "the destination is somebody else": outward((SERVER,), (replace(SERVER, service_account="other"),)),
    "the destination has another address": outward((SERVER,), (replace(SERVER, workload_ips=("10.0.0.9",)),)),
    "the destination has a waypoint now": outward((SERVER,), (GUIDED, WAYPOINT)),
    "the waypoint went away": outward((GUIDED, WAYPOINT), (SERVER, WAYPOINT)),
    "the waypoint that it came through is unhealthy": outward(
        (BY_NAME, GATE, GATE_POD), (BY_NAME, GATE, replace(GATE_POD, status=Status.UNHEALTHY))
    ),
    "in the clear, and the destination has HBONE now": outward(
        (replace(SERVER, protocol=Protocol.TCP),), (SERVER,)
    ),
    "to the outside, and that is of the mesh now": outward((), (SERVER,)),
    "to the outside, and only the mesh may be dialled": outward((), (), OUTSIDE, ONLY_MESH),
    "the destination is unhealthy": outward(
        (WEB, BEHIND), (WEB, replace(BEHIND, status=Status.UNHEALTHY)), TO_WEB
    ),
    "the service has more endpoints, or other weights": outward(
        (WEB, BEHIND), (WEB, replace(BEHIND, capacity=0), replace(MORE, capacity=9)), TO_WEB
    ),
    "the service has the endpoint no more": outward((WEB, BEHIND), (WEB, SERVER, MORE), TO_WEB),
}


@each_row("## Open connections", CHANGES)
def test_what_a_change_does_to_open_connections(cells: list[str], case: Outward | tuple[Record, ...]) -> None:
    outcome, why = cells
    assert (outcome, bool(why)) in {("ends", True), ("goes on", False)}
    assert found(case) == why


def found(case: Outward | tuple[Record, ...]) -> str:
    """Return the objection to a connection of the client after a change."""
    if isinstance(case[0], Workload):
        known = mesh(CLIENT, *(each for each in case if isinstance(each, Record)))
        server = known.by_uid(SERVER.uid)
        assert server is not None
        return authorize(Compat.ZPROXY, known, Attempt(server, CLIENT.identity, "10.0.0.1", TO_SERVER)).reason
    before, to, after, settings = case
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    assert isinstance(to, Endpoint)
    assert isinstance(settings, Settings)
    route = resolve(mesh(CLIENT, *before), CLIENT, to)
    return objection(mesh(CLIENT, *after), CLIENT, to, route, settings)
