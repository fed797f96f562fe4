"""The policy decision: whether a source may reach a port of a pod. All there is to decide on is an Attempt.

Of the policies that apply to the pod (those of its namespace, the global ones, and those it names) dry runs
are left out; then a DENY that matches refuses, and where there is an ALLOW, one must match. That is ztunnel's
procedure. What cannot be judged refuses: a policy that the pod names and nobody knows, one that is not
understood in full, an empty DENY. `Compat.ZTUNNEL` passes over these.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import Action, Authorization, PolicyScope
from zproxy.model.settings import Compat
from zproxy.model.workload import Workload
from zproxy.state.rbac import Facts, matches
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace


class Attempt(NamedTuple):
    """Who wants to reach what."""

    workload: Workload
    """Whose port it is; its policies count."""
    identity: SpiffeId | None
    """Proven by mTLS; None on a plain hop, where nobody proves anything."""
    source_ip: str
    """Of the connection that arrived, never what a header claims."""
    target: Endpoint
    """The port of the app."""


class Verdict(NamedTuple):
    """What was decided; `reason` says which policy refused, as a part of a sentence."""

    is_allowed: bool
    reason: str = ""
    policy: str = ""
    """`namespace/name` of the policy that decided, if one did."""
    cause: str = ""
    """Why a policy could not be judged and so refuses: missing, defect or empty."""
    dry_runs: tuple[str, ...] = ()
    """What the policies that are tried out would have done, a sentence each."""


class Decide(Protocol):
    """A pure function: the same snapshot and attempt ALWAYS have the same verdict, so verdicts are cached."""

    def __call__(self, mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
        """Return the verdict on `attempt`."""


ALLOWED: Final = Verdict(True)
NONE_ALLOWED: Final = "allow policies exist, but none allowed"


def judge(mesh: Mesh, attempt: Attempt, decide: Decide, trace: Trace | None = None) -> Verdict:
    """Return the verdict of `decide`, provided that the mesh agrees whose address the target is."""
    ip, workload = attempt.target.ip, attempt.workload
    owner = mesh.by_ip(ip, workload.network)
    if owner is None:
        return Verdict(False, f"workload not found: the mesh knows nobody at {ip}")
    if owner.uid != workload.uid:
        return Verdict(False, f"workload mismatch: {ip} belongs to {owner.pod}, not to {workload.pod}")
    return decide(mesh, attempt, trace)


def authorize(compat: Compat, mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
    """Return what the policies of the mesh say to `attempt`."""
    is_strict = compat is Compat.ZPROXY
    workload = attempt.workload
    facts = Facts.of(attempt.identity, attempt.source_ip, attempt.target)
    enforced: list[Authorization] = []
    tried: list[str] = []
    for name, policy in _applying(mesh, workload):
        if policy is None:
            _note(trace, name, "missing", f"{workload.pod} names it, and the mesh has no such policy")
            if is_strict:
                return Verdict(False, f"missing policy: {workload.pod} names {name}", name, "missing")
        elif policy.defect:
            _note(trace, name, "not understood", policy.defect)
            if is_strict and not policy.dry_run:
                return Verdict(False, f"policy not understood: {name} {policy.defect}", name, "defect")
        elif policy.dry_run:
            tried += _dry_run(policy, facts, is_strict, trace)
        else:
            enforced.append(policy)
    verdict = _enforce(enforced, facts, is_strict, trace)
    return verdict._replace(dry_runs=tuple(tried)) if tried else verdict


def _enforce(policies: list[Authorization], facts: Facts, is_strict: bool, trace: Trace | None) -> Verdict:
    for policy in policies:
        if policy.action is Action.DENY and _hits(policy, facts, is_strict, trace):
            reason = f"explicitly denied by: {policy.key}"
            if _hits(policy, facts, False, None):
                return Verdict(False, reason, policy.key)
            return Verdict(False, f"{reason}, which is empty", policy.key, "empty")
    allowing = [policy for policy in policies if policy.action is Action.ALLOW]
    for policy in allowing:
        if _hits(policy, facts, False, trace):
            return Verdict(True, policy=policy.key)
    return Verdict(False, NONE_ALLOWED) if allowing else ALLOWED


def _applying(mesh: Mesh, workload: Workload) -> Iterator[tuple[str, Authorization | None]]:
    """Yield the policies of a workload by key, each once; None for one that is named and not known."""
    for policy in mesh.policies_of(""):
        yield policy.key, policy
    if workload.namespace:
        for policy in mesh.policies_of(workload.namespace):
            yield policy.key, policy
    for name in workload.authorization_policies:
        named = mesh.policy(name)
        if named is None or named.scope is PolicyScope.WORKLOAD_SELECTOR:
            yield name, named


def _dry_run(policy: Authorization, facts: Facts, is_strict: bool, trace: Trace | None) -> Iterator[str]:
    is_deny = policy.action is Action.DENY
    is_hit = _hits(policy, facts, is_strict and is_deny, trace)
    if is_hit or not is_deny:
        would = "deny" if is_deny else "allow" if is_hit else "not allow"
        who = facts.principal or facts.source_ip
        yield f"dry run of {policy.key}: it would {would} {who} to {facts.target}"


def _hits(policy: Authorization, facts: Facts, is_strict: bool, trace: Trace | None) -> bool:
    if trace is None:
        return matches(policy, facts, is_strict=is_strict)
    inner = Trace()
    with inner:
        is_hit = matches(policy, facts, is_strict=is_strict, trace=inner)
    what = f"{policy.action.value}, scope {policy.scope.value}" + (", dry run" if policy.dry_run else "")
    _note(trace, policy.key, "matched" if is_hit else "no match", what)
    trace.extend(inner)
    return is_hit


def _note(trace: Trace | None, name: str, outcome: str, detail: str) -> None:
    if trace is not None:
        trace.note("policy", outcome, f"{name}: {detail}")
