"""Whether a policy matches an attempt: ztunnel's nesting, and its empty cases.

Rules are alternatives; a rule's clauses must all match; a clause's matches are alternatives; in one match all
fields must agree, values of a field are alternatives, and none of a `not_` field's may hit.

| | matches |
|---|---|
| no rules | never |
| a rule without clauses | always |
| a clause without matches | always |
| a match without fields | never |

An empty DENY, by the first or the last line, is the one that its author meant and nobody will see enforced
(a DENY of L7 fields only arrives so). `is_strict` makes it match always.
"""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SCHEME, SpiffeId
from zproxy.model.policy import Authorization, Clause, IpBlock, Match, Rule, StringKind, StringMatch
from zproxy.state.trace import Trace


class Facts(NamedTuple):
    """What conditions are compared with."""

    namespace: str | None
    """Of the proven identity; None, like the next two, where nobody proved one: then no value hits."""
    principal: str | None
    service_account: str | None
    """`namespace/name`."""
    source_ip: str
    target: Endpoint

    @classmethod
    def of(cls, identity: SpiffeId | None, source_ip: str, target: Endpoint) -> "Facts":
        """Return the facts about a connection from `source_ip` to `target`."""
        if identity is None:
            return cls(None, None, None, source_ip, target)
        account = f"{identity.namespace}/{identity.service_account}"
        principal = str(identity).removeprefix(SCHEME)
        return cls(identity.namespace, principal, account, source_ip, target)


def matches(policy: Authorization, facts: Facts, *, is_strict: bool, trace: Trace | None = None) -> bool:
    """Tell whether any rule of `policy` matches; `is_strict`: what is empty does, too."""
    if not policy.rules:
        _note(trace, "rule", is_strict, "the policy has no rules")
        return is_strict
    return any(
        _rule_matches(rule, facts, number, is_strict=is_strict, trace=trace)
        for number, rule in enumerate(policy.rules, 1)
    )


def _rule_matches(rule: Rule, facts: Facts, number: int, *, is_strict: bool, trace: Trace | None) -> bool:
    if trace is None:
        return all(_clause_matches(clause, facts, is_strict, None) for clause in rule)
    inner = Trace()
    with inner:
        hits = [_clause_matches(clause, facts, is_strict, inner, each) for each, clause in enumerate(rule, 1)]
    is_hit = all(hits)
    _note(trace, "rule", is_hit, f"rule {number}" + ("" if rule else ", which has no clauses"))
    trace.extend(inner)
    return is_hit


def _clause_matches(
    clause: Clause, facts: Facts, is_strict: bool, trace: Trace | None, number: int = 0
) -> bool:
    if trace is None:
        return not clause or any(_agrees(match, facts, is_strict, None) for match in clause)
    inner = Trace()
    with inner:
        hits = [_agrees(match, facts, is_strict, inner) for match in clause]
    is_hit = not clause or any(hits)
    _note(trace, "clause", is_hit, f"clause {number}" + ("" if clause else ", which has no matches"))
    trace.extend(inner)
    return is_hit


def _agrees(match: Match, facts: Facts, is_strict: bool, trace: Trace | None) -> bool:
    """Tell whether all fields of one match agree."""
    if not any(match):
        _note(trace, "match", is_strict, "the match has no fields")
        return is_strict
    if trace is None:
        return all(
            (not wanted or hits(wanted, facts)) and not (unwanted and hits(unwanted, facts))
            for wanted, unwanted, hits in zip(match[::2], match[1::2], _HITS, strict=True)
        )
    is_hit = True
    for position, (name, show) in enumerate(_SHOWN):
        for index, prefix in ((2 * position, ""), (2 * position + 1, "not_")):
            values: Sequence[Any] = match[index]
            if values:
                agrees = _HITS[position](values, facts) is not bool(prefix)
                is_hit = is_hit and agrees
                _note(trace, "field", agrees, f"{prefix}{name} {_listed(values)}: it is {show(facts)}")
    return is_hit


def _note(trace: Trace | None, subject: str, is_hit: bool, detail: str) -> None:
    if trace is not None:
        trace.note(subject, "matched" if is_hit else "no match", detail)


def _listed(values: Sequence[object]) -> str:
    return "[" + ", ".join(str(value) for value in values) + "]"


def _text_hits(wanted: StringMatch, value: str) -> bool:
    kind, text = wanted
    if kind is StringKind.EXACT:
        return value == text
    if kind is StringKind.PREFIX:
        return value.startswith(text)
    return value.endswith(text) if kind is StringKind.SUFFIX else value != ""


def _namespaces(values: Sequence[StringMatch], facts: Facts) -> bool:
    value = facts.namespace
    return value is not None and any(_text_hits(each, value) for each in values)


def _principals(values: Sequence[StringMatch], facts: Facts) -> bool:
    value = facts.principal
    return value is not None and any(_text_hits(each, value) for each in values)


def _service_accounts(values: Sequence[object], facts: Facts) -> bool:
    value = facts.service_account
    return value is not None and any(str(each) == value for each in values)


def _source_ips(values: Sequence[IpBlock], facts: Facts) -> bool:
    return any(_is_within(facts.source_ip, each) for each in values)


def _destination_ips(values: Sequence[IpBlock], facts: Facts) -> bool:
    return any(_is_within(facts.target.ip, each) for each in values)


def _destination_ports(values: Sequence[int], facts: Facts) -> bool:
    return facts.target.port in values


def _is_within(ip: str, block: IpBlock) -> bool:
    is_v6, value, bits = number_of(ip)
    block_is_v6, first, _ = number_of(block.ip)
    shift = bits - block.length
    return is_v6 == block_is_v6 and value >> shift == first >> shift


@lru_cache(maxsize=16384)
def number_of(ip: str) -> tuple[bool, int, int]:
    """Return whether `ip` is IPv6, its number, and how many bits that has."""
    address = ipaddress.ip_address(ip)
    return address.version == 6, int(address), address.max_prefixlen


def _or_nobody(value: str | None) -> str:
    return "nobody proven" if value is None else value


_HITS: Final[tuple[Callable[[Any, Facts], bool], ...]] = (
    *(_namespaces, _principals, _service_accounts, _source_ips, _destination_ips, _destination_ports),
)
"""In the order of the fields of Match, each with its `not_`."""
_SHOWN: Final[tuple[tuple[str, Callable[[Facts], str]], ...]] = (
    ("namespaces", lambda facts: _or_nobody(facts.namespace)),
    ("principals", lambda facts: _or_nobody(facts.principal)),
    ("service_accounts", lambda facts: _or_nobody(facts.service_account)),
    ("source_ips", lambda facts: facts.source_ip),
    ("destination_ips", lambda facts: facts.target.ip),
    ("destination_ports", lambda facts: str(facts.target.port)),
)
