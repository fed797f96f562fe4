"""Whether a policy matches: ztunnel's truth table of empty cases, its nesting, and each of the six fields."""

import pytest

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    Rule,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.state.rbac import Facts, matches
from zproxy.state.trace import Trace

TLS = SpiffeId("td", "namespace", "account")
OTHER_TLS = SpiffeId("td", "ns-alt", "sa-alt")
CONNECTIONS = {"plaintext": None, "tls": TLS, "other tls": OTHER_TLS}
TARGET = Endpoint("127.0.0.2", 8080)


def facts(identity: SpiffeId | None = TLS, source: str = "127.0.0.1", target: Endpoint = TARGET) -> Facts:
    return Facts.of(identity, source, target)


def policy(*rules: Rule, action: Action = Action.ALLOW) -> Authorization:
    return Authorization("policy", "namespace", action=action, rules=rules)


def exact(value: str) -> StringMatch:
    return StringMatch(StringKind.EXACT, value)


HIT = Match(namespaces=(exact("namespace"),))
MISS = Match(namespaces=(exact("elsewhere"),))


@pytest.mark.parametrize(
    ("rules", "expected", "strict"),
    [
        ((), False, True),
        (((),), True, True),
        ((((),),), True, True),
        ((((Match(),),),), False, True),
    ],
    ids=["no rules", "a rule without clauses", "a clause without matches", "a match without fields"],
)
def test_empty_policies(rules: tuple[Rule, ...], expected: bool, strict: bool) -> None:
    assert matches(policy(*rules), facts(), is_strict=False) is expected
    assert matches(policy(*rules), facts(), is_strict=True) is strict


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((((HIT,),),), True),
        ((((MISS,),),), False),
        ((((MISS, HIT),),), True),
        ((((HIT,), (MISS,)),), False),
        ((((HIT,), (MISS, HIT)),), True),
        ((((MISS,),), ((HIT,),)), True),
        ((((MISS,),), ((MISS,),)), False),
        ((((HIT,), ()),), True),
    ],
    ids=[
        "one that hits",
        "one that misses",
        "matches are alternatives",
        "clauses must all match",
        "clauses of alternatives",
        "rules are alternatives",
        "no rule matches",
        "an empty clause is no condition",
    ],
)
def test_nesting(rules: tuple[Rule, ...], expected: bool) -> None:
    assert matches(policy(*rules), facts(), is_strict=False) is expected


FIELDS = {
    "namespaces": Match(namespaces=(exact("namespace"),)),
    "not_namespaces": Match(not_namespaces=(exact("namespace"),)),
    "principals": Match(principals=(exact("td/ns/namespace/sa/account"),)),
    "not_principals": Match(not_principals=(exact("td/ns/namespace/sa/account"),)),
    "service_accounts": Match(service_accounts=(ServiceAccountMatch("namespace", "account"),)),
    "not_service_accounts": Match(not_service_accounts=(ServiceAccountMatch("namespace", "account"),)),
    "source_ips": Match(source_ips=(IpBlock("127.0.0.1", 32),)),
    "not_source_ips": Match(not_source_ips=(IpBlock("127.0.0.1", 32),)),
    "destination_ips": Match(destination_ips=(IpBlock("127.0.0.2", 32),)),
    "not_destination_ips": Match(not_destination_ips=(IpBlock("127.0.0.2", 32),)),
    "destination_ports": Match(destination_ports=(8080,)),
    "not_destination_ports": Match(not_destination_ports=(8080,)),
}
OF_THE_PEER = {"namespaces", "principals", "service_accounts"}


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("field", FIELDS)
def test_fields(field: str, connection: str) -> None:
    """Who proves nothing is in no namespace and no principal, and so never hit and never excluded."""
    name = field.removeprefix("not_")
    is_hit = connection == "tls" if name in OF_THE_PEER else True
    expected = is_hit is (name == field)
    where = policy(((FIELDS[field],),))
    assert matches(where, facts(CONNECTIONS[connection]), is_strict=False) is expected


def test_all_fields_of_a_match_must_agree_and_values_are_alternatives() -> None:
    both = Match(namespaces=(exact("elsewhere"), exact("namespace")), destination_ports=(80, 8080))
    assert matches(policy(((both,),)), facts(), is_strict=False)
    assert not matches(policy(((both,),)), facts(target=TARGET._replace(port=81)), is_strict=False)
    assert not matches(policy(((both,),)), facts(None), is_strict=False)


@pytest.mark.parametrize(
    ("block", "ip", "expected"),
    [
        (IpBlock("10.0.0.0", 8), "10.255.0.1", True),
        (IpBlock("10.0.0.0", 8), "11.0.0.1", False),
        (IpBlock("10.1.2.3", 32), "10.1.2.3", True),
        (IpBlock("10.1.2.3", 32), "10.1.2.2", False),
        (IpBlock("0.0.0.0", 0), "192.0.2.1", True),
        (IpBlock("0.0.0.0", 0), "fd00::1", False),
        (IpBlock("fd00::", 8), "fd00:1::1", True),
        (IpBlock("fd00::", 8), "fe00::1", False),
        (IpBlock("::", 0), "192.0.2.1", False),
    ],
)
def test_ranges(block: IpBlock, ip: str, expected: bool) -> None:
    assert matches(policy(((Match(source_ips=(block,)),),)), facts(source=ip), is_strict=False) is expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (StringKind.EXACT, "namespace", True),
        (StringKind.EXACT, "namespac", False),
        (StringKind.EXACT, "", False),
        (StringKind.PREFIX, "name", True),
        (StringKind.PREFIX, "", True),
        (StringKind.PREFIX, "ame", False),
        (StringKind.SUFFIX, "space", True),
        (StringKind.SUFFIX, "", True),
        (StringKind.SUFFIX, "spac", False),
        (StringKind.PRESENCE, "", True),
    ],
)
def test_texts(kind: StringKind, value: str, expected: bool) -> None:
    where = policy(((Match(namespaces=(StringMatch(kind, value),)),),))
    assert matches(where, facts(), is_strict=False) is expected
    assert not matches(where, facts(None), is_strict=False)


def test_a_principal_with_its_scheme_never_matches() -> None:
    where = policy(((Match(principals=(exact("spiffe://td/ns/namespace/sa/account"),)),),))
    assert not matches(where, facts(), is_strict=False)


def test_a_trace_shows_rules_clauses_and_fields_and_changes_nothing() -> None:
    trace = Trace()
    where = policy(((MISS,),), ((HIT, MISS), (Match(destination_ports=(80,)),)))
    assert not matches(where, facts(), is_strict=False, trace=trace)
    assert [(step.depth, step.subject, step.outcome, step.detail) for step in trace.steps] == [
        (0, "rule", "no match", "rule 1"),
        (1, "clause", "no match", "clause 1"),
        (2, "field", "no match", "namespaces [elsewhere]: it is namespace"),
        (0, "rule", "no match", "rule 2"),
        (1, "clause", "matched", "clause 1"),
        (2, "field", "matched", "namespaces [namespace]: it is namespace"),
        (2, "field", "no match", "namespaces [elsewhere]: it is namespace"),
        (1, "clause", "no match", "clause 2"),
        (2, "field", "no match", "destination_ports [80]: it is 8080"),
    ]


def test_a_trace_says_that_nobody_was_proven() -> None:
    trace = Trace()
    assert matches(policy(((FIELDS["not_principals"],),)), facts(None), is_strict=False, trace=trace)
    assert trace.steps[-1].detail == "not_principals [td/ns/namespace/sa/account]: it is nobody proven"
