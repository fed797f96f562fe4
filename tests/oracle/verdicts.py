"""The rules of authorization once more, as simply as they can be said; see tests.oracle.routes."""

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import Action, Authorization, Match, PolicyScope, StringKind, StringMatch
from zproxy.model.settings import Compat
from zproxy.model.workload import Workload
from zproxy.state.store import Mesh


def is_allowed(
    mesh: Mesh,
    workload: Workload,
    identity: SpiffeId | None,
    source_ip: str,
    target: Endpoint,
    compat: Compat,
) -> bool:
    """Whether the policies of `workload` let `identity` at `source_ip` reach `target`."""
    is_strict = compat is Compat.ZPROXY
    known = {each.key: each for each in mesh.policies}
    if is_strict and any(key not in known for key in workload.authorization_policies):
        return False
    applying = [each for each in mesh.policies if _applies(each, workload) and not each.dry_run]
    if any(each.defect for each in applying):
        if is_strict:
            return False
        applying = [each for each in applying if not each.defect]
    facts = _Facts(identity, source_ip, target)
    denying = [each for each in applying if each.action is Action.DENY]
    allowing = [each for each in applying if each.action is Action.ALLOW]
    if any(_hits(each, facts, is_strict=is_strict) for each in denying):
        return False
    return not allowing or any(_hits(each, facts, is_strict=False) for each in allowing)


def _applies(policy: Authorization, workload: Workload) -> bool:
    if policy.key in workload.authorization_policies:
        return True
    if policy.scope is PolicyScope.WORKLOAD_SELECTOR:
        return False
    return policy.scope is PolicyScope.GLOBAL or policy.namespace in {"", workload.namespace}


class _Facts(NamedTuple):
    identity: SpiffeId | None
    source_ip: str
    target: Endpoint


def _hits(policy: Authorization, facts: _Facts, *, is_strict: bool) -> bool:
    if not policy.rules:
        return is_strict
    for rule in policy.rules:
        if all(not clause or any(_agrees(match, facts, is_strict) for match in clause) for clause in rule):
            return True
    return False


def _agrees(match: Match, facts: _Facts, is_strict: bool) -> bool:
    if not any(match):
        return is_strict
    return all(
        (not wanted or any(wanted_hits)) and not any(unwanted_hits)
        for wanted, wanted_hits, unwanted_hits in _conditions(match, facts)
    )


def _conditions(match: Match, facts: _Facts) -> Iterator[tuple[tuple[object, ...], list[bool], list[bool]]]:
    for name, check in _CHECKS.items():
        wanted, unwanted = getattr(match, name), getattr(match, f"not_{name}")
        yield wanted, [check(each, facts) for each in wanted], [check(each, facts) for each in unwanted]


def _text(wanted: StringMatch, value: str | None) -> bool:
    if value is None:
        return False
    return {
        StringKind.EXACT: value == wanted.value,
        StringKind.PREFIX: value.startswith(wanted.value),
        StringKind.SUFFIX: value.endswith(wanted.value),
        StringKind.PRESENCE: value != "",
    }[wanted.kind]


def _within(block: object, ip: str) -> bool:
    return ipaddress.ip_address(ip) in ipaddress.ip_network(str(block))


def _namespace(facts: _Facts) -> str | None:
    return facts.identity and facts.identity.namespace


def _principal(facts: _Facts) -> str | None:
    return facts.identity and str(facts.identity).removeprefix("spiffe://")


def _account(facts: _Facts) -> str | None:
    return facts.identity and f"{facts.identity.namespace}/{facts.identity.service_account}"


_CHECKS: dict[str, Callable[[Any, _Facts], bool]] = {
    "namespaces": lambda value, facts: _text(value, _namespace(facts)),
    "principals": lambda value, facts: _text(value, _principal(facts)),
    "service_accounts": lambda value, facts: str(value) == _account(facts),
    "source_ips": lambda value, facts: _within(value, facts.source_ip),
    "destination_ips": lambda value, facts: _within(value, facts.target.ip),
    "destination_ports": lambda value, facts: value == facts.target.port,
}
