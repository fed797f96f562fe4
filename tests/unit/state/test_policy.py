"""The policy decision, and whose address a target is."""

import random
from dataclasses import replace

import pytest

from tests.oracle.meshes import world
from tests.support.mesh import allow_all, mesh, workload
from zproxy.model.addr import Endpoint
from zproxy.model.policy import Action, Authorization, Match, PolicyScope, StringKind, StringMatch
from zproxy.model.settings import Compat
from zproxy.state.policy import (
    ALLOWED,
    GROUPS_REMEMBERED,
    NONE_ALLOWED,
    Attempt,
    Verdict,
    authorize,
    judge,
    prepare,
)
from zproxy.state.store import Change, Mesh
from zproxy.state.trace import Trace

SERVER = workload("demo/server", "10.244.2.5", "fd00:244:2::5")
CLIENT = workload("demo/client", "10.244.1.5")
ATTEMPT = Attempt(SERVER, CLIENT.identity, "10.244.1.5", Endpoint("10.244.2.5", 80))


def deny(mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
    return Verdict(False, f"explicitly denied: port {attempt.target.port}")


def test_without_policies_everything_is_allowed() -> None:
    assert judge(mesh(CLIENT, SERVER), ATTEMPT, allow_all) is ALLOWED


def test_what_a_policy_says_is_the_verdict() -> None:
    assert judge(mesh(CLIENT, SERVER), ATTEMPT, deny) == Verdict(False, "explicitly denied: port 80")


def test_an_address_that_now_belongs_to_another_pod_is_rejected_before_any_policy() -> None:
    verdict = judge(mesh(workload("demo/successor", "10.244.2.5")), ATTEMPT, allow_all)
    assert verdict == Verdict(
        False, "workload mismatch: 10.244.2.5 belongs to demo/successor, not to demo/server"
    )


def test_an_address_that_the_mesh_has_forgotten_is_rejected() -> None:
    verdict = judge(mesh(CLIENT), ATTEMPT, allow_all)
    assert verdict == Verdict(False, "workload not found: the mesh knows nobody at 10.244.2.5")


def test_a_newer_record_of_the_same_workload_is_the_same_workload() -> None:
    renewed = workload("demo/server", "10.244.2.5", node="moved")
    assert judge(mesh(renewed), ATTEMPT, allow_all) is ALLOWED


ANYBODY: tuple[tuple[tuple[Match, ...], ...], ...] = ((),)
NOBODY = (((Match(namespaces=(StringMatch(StringKind.EXACT, "elsewhere"),)),),),)
UNPROVEN = (((Match(not_principals=(StringMatch(StringKind.PRESENCE),)),),),)
ALLOW = Authorization("allow", "demo", rules=ANYBODY)
ALLOW_OTHERS = Authorization("allow-others", "demo", rules=NOBODY)
DENY = Authorization("deny", "demo", action=Action.DENY, rules=ANYBODY)
DENY_OTHERS = Authorization("deny-others", "demo", action=Action.DENY, rules=NOBODY)
DENIED = "explicitly denied by: demo/deny"


def verdict(*policies: Authorization, compat: Compat = Compat.ZPROXY, attempt: Attempt = ATTEMPT) -> Verdict:
    return authorize(compat, mesh(CLIENT, attempt.workload, *policies), attempt)


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        ((), ""),
        ((ALLOW,), ""),
        ((ALLOW_OTHERS,), NONE_ALLOWED),
        ((ALLOW_OTHERS, ALLOW), ""),
        ((DENY,), DENIED),
        ((DENY_OTHERS,), ""),
        ((DENY, ALLOW), DENIED),
        ((DENY_OTHERS, ALLOW_OTHERS), NONE_ALLOWED),
        ((Authorization("allow-nothing", "demo"),), NONE_ALLOWED),
    ],
    ids=[
        "no policies",
        "allowed",
        "none allows",
        "one of several allows",
        "denied",
        "not denied",
        "denied before allowed",
        "not denied and none allows",
        "an ALLOW without rules",
    ],
)
def test_deny_goes_before_allow(policies: tuple[Authorization, ...], reason: str) -> None:
    for compat in Compat:
        assert verdict(*policies, compat=compat).reason == reason
        assert verdict(*policies, compat=compat).is_allowed == (not reason)


@pytest.mark.parametrize(
    ("scope", "namespace", "named", "applies"),
    [
        (PolicyScope.NAMESPACE, "demo", (), True),
        (PolicyScope.NAMESPACE, "elsewhere", (), False),
        (PolicyScope.GLOBAL, "istio-system", (), True),
        (PolicyScope.WORKLOAD_SELECTOR, "demo", (), False),
        (PolicyScope.WORKLOAD_SELECTOR, "demo", ("demo/deny",), True),
        (PolicyScope.WORKLOAD_SELECTOR, "istio-system", ("istio-system/deny",), True),
        (PolicyScope.NAMESPACE, "elsewhere", ("elsewhere/deny",), True),
        (PolicyScope.NAMESPACE, "", (), True),
        (PolicyScope.GLOBAL, "elsewhere", ("elsewhere/deny",), True),
    ],
)
def test_scopes(scope: PolicyScope, namespace: str, named: tuple[str, ...], applies: bool) -> None:
    policy = replace(DENY, scope=scope, namespace=namespace)
    attempt = ATTEMPT._replace(workload=replace(SERVER, authorization_policies=named))
    assert verdict(policy, attempt=attempt).is_allowed is not applies


def test_a_policy_that_changes_its_scope_applies_by_the_new_one_alone() -> None:
    """The test that ztunnel has of its store."""
    known = mesh(CLIENT, SERVER, DENY)
    for scope, applies in ((PolicyScope.WORKLOAD_SELECTOR, False), (PolicyScope.GLOBAL, True)):
        known = known.changed(Change(policies=(replace(DENY, scope=scope),)))
        assert authorize(Compat.ZPROXY, known, ATTEMPT).is_allowed is not applies


def test_the_policies_of_the_destination_count_and_not_those_of_the_source() -> None:
    choosy = replace(CLIENT, authorization_policies=("demo/deny",))
    policy = replace(DENY, scope=PolicyScope.WORKLOAD_SELECTOR)
    assert authorize(Compat.ZPROXY, mesh(choosy, SERVER, policy), ATTEMPT).is_allowed


def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    tried = verdict(replace(DENY, dry_run=True), replace(ALLOW_OTHERS, dry_run=True))
    assert tried.is_allowed
    who = str(CLIENT.identity).removeprefix("spiffe://")
    assert tried.dry_runs == (
        f"dry run of demo/allow-others: it would not allow {who} to 10.244.2.5:80",
        f"dry run of demo/deny: it would deny {who} to 10.244.2.5:80",
    )


EMPTY_MATCH = replace(DENY, rules=(((Match(),),),))


@pytest.mark.parametrize(
    ("policies", "named", "cause", "words"),
    [
        ((), ("demo/gone",), "missing", "missing policy: demo/server names demo/gone"),
        (
            (replace(DENY_OTHERS, defect="has the action AUDIT"),),
            (),
            "defect",
            "policy not understood: demo/deny-others has the action AUDIT",
        ),
        ((replace(DENY, rules=()),), (), "empty", "explicitly denied by: demo/deny, which is empty"),
        ((EMPTY_MATCH,), (), "empty", "explicitly denied by: demo/deny, which is empty"),
    ],
)
def test_what_cannot_be_judged_refuses_unless_ztunnels_way_is_asked_for(
    policies: tuple[Authorization, ...], named: tuple[str, ...], cause: str, words: str
) -> None:
    attempt = ATTEMPT._replace(workload=replace(SERVER, authorization_policies=named))
    closed = verdict(*policies, attempt=attempt)
    assert (closed.is_allowed, closed.cause, closed.reason) == (False, cause, words)
    assert verdict(*policies, attempt=attempt, compat=Compat.ZTUNNEL).is_allowed


def test_strict_mtls_as_istiod_converts_it_refuses_who_proves_nothing() -> None:
    strict = Authorization(
        "istio_converted_static_strict", "istio-system", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, UNPROVEN
    )
    server = replace(SERVER, authorization_policies=(strict.key,))
    attempt = ATTEMPT._replace(workload=server)
    assert verdict(strict, attempt=attempt).is_allowed
    plain = verdict(strict, attempt=attempt._replace(identity=None))
    assert plain.reason == "explicitly denied by: istio-system/istio_converted_static_strict"


def test_a_port_may_be_left_out_of_strict_mtls() -> None:
    exception = (Match(not_destination_ports=(80,)),)
    strict = replace(DENY, rules=((*UNPROVEN[0], exception),))
    plain = ATTEMPT._replace(identity=None)
    assert verdict(strict, attempt=plain).is_allowed
    assert not verdict(strict, attempt=plain._replace(target=Endpoint("10.244.2.5", 81))).is_allowed


def test_a_trace_names_every_policy_and_changes_nothing() -> None:
    trace = Trace()
    known = mesh(CLIENT, SERVER, DENY_OTHERS, ALLOW_OTHERS, ALLOW)
    assert authorize(Compat.ZPROXY, known, ATTEMPT, trace) == Verdict(True, policy="demo/allow")
    policies = [(step.outcome, step.detail) for step in trace.steps if step.depth == 0]
    assert policies == [
        ("apply", "demo/allow, demo/allow-others, demo/deny-others"),
        ("no match", "demo/deny-others: Deny, scope Namespace"),
        ("matched", "demo/allow: Allow, scope Namespace"),
        ("allowed", "by demo/allow"),
    ]


@pytest.mark.parametrize(
    ("policies", "named", "outcome", "detail"),
    [
        ((), (), "allowed", "no policy denies it, and none has to allow it"),
        ((DENY,), (), "denied", "explicitly denied by: demo/deny"),
        ((ALLOW_OTHERS,), (), "denied", NONE_ALLOWED),
        ((), ("demo/gone",), "denied", "missing policy: demo/server names demo/gone"),
    ],
)
def test_a_trace_ends_with_the_verdict(
    policies: tuple[Authorization, ...], named: tuple[str, ...], outcome: str, detail: str
) -> None:
    trace = Trace()
    server = replace(SERVER, authorization_policies=named)
    authorize(Compat.ZPROXY, mesh(CLIENT, server, *policies), ATTEMPT._replace(workload=server), trace)
    assert trace.steps[-1] == ("verdict", outcome, detail, 0)


def test_a_trace_shows_what_cannot_be_judged_and_what_is_tried_out() -> None:
    trace = Trace()
    server = replace(SERVER, authorization_policies=("demo/gone",))
    known = mesh(CLIENT, server, replace(DENY, dry_run=True), replace(ALLOW, name="odd", defect="is odd"))
    verdict = authorize(Compat.ZTUNNEL, known, ATTEMPT._replace(workload=server), trace)
    assert verdict.is_allowed
    shown = [(step.outcome, step.detail) for step in trace.steps if step.subject == "policy"]
    assert shown == [
        ("not understood", "demo/odd: is odd"),
        ("missing", "demo/gone: demo/server names it"),
        ("matched", "demo/deny: Deny, scope Namespace, dry run"),
    ]


def test_a_trace_says_whose_the_address_is_not() -> None:
    trace = Trace()
    reason = judge(mesh(CLIENT), ATTEMPT, allow_all, trace).reason
    assert trace.steps == [("verdict", "denied", reason, 0)]


def test_a_policy_that_applies_by_its_scope_and_by_name_is_asked_once() -> None:
    server = replace(SERVER, authorization_policies=("demo/deny",))
    tried = verdict(replace(DENY, dry_run=True), attempt=ATTEMPT._replace(workload=server))
    assert len(tried.dry_runs) == 1


def test_policies_are_put_in_order_once_for_all_snapshots_that_have_them() -> None:
    first = mesh(CLIENT, SERVER, DENY)
    prepare(first)
    known = dict(first.policy_memo)
    second = first.changed(Change(workloads=(workload("demo/new", "10.0.0.9"),)))
    assert not authorize(Compat.ZPROXY, second, ATTEMPT).is_allowed
    assert second.policy_memo == known
    third = second.changed(Change(gone_policies=("demo/deny",)))
    assert authorize(Compat.ZPROXY, third, ATTEMPT).is_allowed


def test_lists_of_named_policies_are_bounded() -> None:
    known = mesh(CLIENT, SERVER, DENY)
    for number in range(GROUPS_REMEMBERED + 2):
        server = replace(SERVER, namespace="other", authorization_policies=(f"demo/{number}",))
        authorize(Compat.ZPROXY, known, ATTEMPT._replace(workload=server))
    assert len(known.policy_memo) <= GROUPS_REMEMBERED


def test_a_trace_changes_no_verdict() -> None:
    rng = random.Random(8)
    refused = 0
    for _ in range(300):
        made = world(rng)
        target, peer = rng.choice(made.mesh.workloads), rng.choice(made.mesh.workloads)
        attempt = Attempt(target, rng.choice((None, peer.identity)), "10.0.0.1", Endpoint("10.0.0.2", 80))
        for compat in Compat:
            trace = Trace()
            plain = authorize(compat, made.mesh, attempt)
            assert authorize(compat, made.mesh, attempt, trace) == plain
            assert trace.steps[0].subject == "policies"
            assert trace.steps[-1].subject == "verdict"
            refused += not plain.is_allowed
    assert 100 < refused < 500
