"""The policy decision: whether a source may reach a port of a pod. All there is to decide on is an Attempt.

Of the policies that apply to the pod (those of its namespace, the global ones, and those it names) dry runs
are left out; then a DENY that matches refuses, and where there is an ALLOW, one must match. That is ztunnel's
procedure. What cannot be judged refuses: a policy that the pod names and nobody knows, one that is not
understood in full, an empty DENY. `Compat.ZTUNNEL` passes over these.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import Action, Authorization
from zproxy.model.settings import Compat
from zproxy.model.workload import Workload
from zproxy.state.anchors import Anchored
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
GROUPS_REMEMBERED: Final = 1024
"""One for each namespace, and for each list of named policies that its workloads have."""
NONE_ALLOWED: Final = "allow policies exist, but none allowed"


def judge(mesh: Mesh, attempt: Attempt, decide: Decide, trace: Trace | None = None) -> Verdict:
    """Return the verdict of `decide`, provided that the mesh agrees whose address the target is."""
    ip, workload = attempt.target.ip, attempt.workload
    owner = mesh.by_ip(ip, workload.network)
    if owner is not None and owner.uid == workload.uid:
        return decide(mesh, attempt, trace)
    reason = f"workload not found: the mesh knows nobody at {ip}"
    if owner is not None:
        reason = f"workload mismatch: {ip} belongs to {owner.pod}, not to {workload.pod}"
    if trace is not None:
        trace.note("verdict", "denied", reason)
    return Verdict(False, reason)


def authorize(compat: Compat, mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
    """Return what the policies of the mesh say to `attempt`."""
    is_strict = compat is Compat.ZPROXY
    groups = _groups(mesh, attempt.workload)
    facts = Facts.of(attempt.identity, attempt.source_ip, attempt.target)
    flaws = [flaw for group in groups for flaw in group.flaws]
    if trace is not None:
        keys = [key for group in groups for key in group.keys]
        trace.note("policies", "apply" if keys else "none", ", ".join(keys))
    for name, why in flaws:
        _note(trace, name, "not understood" if why else "missing", why or f"{attempt.workload.pod} names it")
    if is_strict and flaws:
        verdict = _flawed(attempt.workload, *flaws[0])
    else:
        verdict = _enforce(groups, facts, is_strict, trace)
        tried = [
            sentence
            for group in groups
            for policy in group.tried
            for sentence in _dry_run(policy, facts, is_strict, trace)
        ]
        if tried:
            verdict = verdict._replace(dry_runs=tuple(tried))
    if trace is not None:
        trace.note("verdict", "allowed" if verdict.is_allowed else "denied", _ending(verdict))
    return verdict


def prepare(mesh: Mesh) -> None:
    """Do beforehand what the first connections would wait for: 10,000 rules take some 50 ms."""
    for namespace in {"", *(policy.namespace for policy in mesh.policies)}:
        _of_scope(mesh, namespace)


class _Group(NamedTuple):
    """Policies that apply together."""

    keys: tuple[str, ...]
    """Of all of them, in order."""
    flaws: tuple[tuple[str, str], ...]
    """Those that cannot be judged: key, and what is not understood; empty if there is no such policy."""
    tried: tuple[Authorization, ...]
    """Dry runs."""
    denying: Anchored
    allowing: Anchored


def _groups(mesh: Mesh, workload: Workload) -> list[_Group]:
    """Return what applies to `workload`, each policy once."""
    namespace = workload.namespace
    found = [_of_scope(mesh, "")]
    if namespace:
        found.append(_of_scope(mesh, namespace))
    if workload.authorization_policies:
        found.append(_named(mesh, namespace, workload.authorization_policies))
    return found


def _of_scope(mesh: Mesh, namespace: str) -> _Group:
    return _remembered(mesh, namespace, lambda: _group(mesh.policies_of(namespace)))


def _named(mesh: Mesh, namespace: str, names: tuple[str, ...]) -> _Group:
    def find() -> _Group:
        applied = {policy.key for scope in ("", namespace) for policy in mesh.policies_of(scope)}
        wanted = [name for name in dict.fromkeys(names) if name not in applied]
        found = {name: mesh.policy(name) for name in wanted}
        missing = tuple((name, "") for name, policy in found.items() if policy is None)
        group = _group([policy for policy in found.values() if policy is not None])
        return group._replace(keys=tuple(wanted), flaws=missing + group.flaws)

    return _remembered(mesh, (namespace, names), find)


def _remembered(mesh: Mesh, key: Hashable, find: Callable[[], _Group]) -> _Group:
    memo = mesh.policy_memo
    found: _Group | None = memo.get(key)
    if found is None:
        if len(memo) >= GROUPS_REMEMBERED:
            memo.clear()
        found = memo[key] = find()
    return found


def _group(policies: Sequence[Authorization]) -> _Group:
    whole = [policy for policy in policies if not policy.defect]
    enforced = [policy for policy in whole if not policy.dry_run]
    return _Group(
        tuple(each.key for each in policies),
        tuple((each.key, each.defect) for each in policies if each.defect and not each.dry_run),
        tuple(policy for policy in whole if policy.dry_run),
        Anchored(policy for policy in enforced if policy.action is Action.DENY),
        Anchored(policy for policy in enforced if policy.action is Action.ALLOW),
    )


def _flawed(workload: Workload, name: str, why: str) -> Verdict:
    if why:
        return Verdict(False, f"policy not understood: {name} {why}", name, "defect")
    return Verdict(False, f"missing policy: {workload.pod} names {name}", name, "missing")


def _enforce(groups: Sequence[_Group], facts: Facts, is_strict: bool, trace: Trace | None) -> Verdict:
    for policy in _asked([group.denying for group in groups], facts, trace):
        if _hits(policy, facts, is_strict, trace):
            reason = f"explicitly denied by: {policy.key}"
            if _hits(policy, facts, False, None):
                return Verdict(False, reason, policy.key)
            return Verdict(False, f"{reason}, which is empty", policy.key, "empty")
    for policy in _asked([group.allowing for group in groups], facts, trace):
        if _hits(policy, facts, False, trace):
            return Verdict(True, policy=policy.key)
    return Verdict(False, NONE_ALLOWED) if any(group.allowing for group in groups) else ALLOWED


def _asked(groups: Iterable[Anchored], facts: Facts, trace: Trace | None) -> Iterator[Authorization]:
    """Yield those that may match; for a trace all, as it says why the others do not."""
    for group in groups:
        yield from group.may_match(facts) if trace is None else group.policies


def _ending(verdict: Verdict) -> str:
    if verdict.is_allowed:
        return f"by {verdict.policy}" if verdict.policy else "no policy denies it, and none has to allow it"
    return verdict.reason


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
