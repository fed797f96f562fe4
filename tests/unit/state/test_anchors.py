"""The index of policies leaves out only those that do not match, and most of them."""

import random
from typing import Any

import pytest

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import (
    Authorization,
    IpBlock,
    Match,
    Rule,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.state.anchors import Anchored
from zproxy.state.rbac import Facts, matches

WHO = SpiffeId("td", "ns", "sa")
FACTS = Facts.of(WHO, "10.0.1.2", Endpoint("10.0.0.1", 80))


def text(value: str, kind: StringKind = StringKind.EXACT) -> StringMatch:
    return StringMatch(kind, value)


def policy(*rules: Rule) -> Authorization:
    return Authorization("policy", "ns", rules=rules)


def is_asked(*rules: Rule, facts: Facts = FACTS) -> bool:
    return len(list(Anchored([policy(*rules)]).may_match(facts))) == 1


PORT = (Match(destination_ports=(80,)),)
OTHER = Match(principals=(text("td/ns/ns/sa/other"),))
BLOCK = Match(source_ips=(IpBlock("10.0.1.0", 24),))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), True),
        (((),), True),
        ((((),),), True),
        ((((Match(),),),), True),
        ((((OTHER,),),), False),
        ((((Match(principals=(text("td/ns/ns/sa/sa"),)),),),), True),
        ((((Match(principals=(text("td/"), text("x", StringKind.PREFIX))),),),), True),
        ((((Match(namespaces=(text("elsewhere"),)),),),), False),
        ((((Match(service_accounts=(ServiceAccountMatch("ns", "sa"),)),),),), True),
        ((((BLOCK,),),), True),
        ((((Match(source_ips=(IpBlock("10.0.2.0", 24),)),),),), False),
        ((((Match(source_ips=(IpBlock("fd00::", 8),)),),),), False),
        ((((Match(not_namespaces=(text("ns"),)),),),), True),
        (((PORT, (OTHER,)),), False),
        (((PORT, (OTHER, BLOCK)),), True),
        (((PORT, (OTHER, Match())),), True),
        ((((OTHER,),), (PORT,)), True),
    ],
)
def test_what_is_asked(rules: tuple[Rule, ...], expected: bool) -> None:
    assert is_asked(*rules) is expected


def test_who_proves_nothing_is_found_by_address_and_port_only() -> None:
    nobody = Facts.of(None, "10.0.1.2", Endpoint("10.0.0.1", 80))
    assert not is_asked(((Match(namespaces=(text("ns"),)),),), facts=nobody)
    assert is_asked(((BLOCK,),), facts=nobody)


def test_those_that_are_asked_come_in_order() -> None:
    policies = [policy(((BLOCK,),)), policy(), policy((PORT,)), policy(((OTHER,),))]
    assert list(Anchored(policies).may_match(FACTS)) == policies[:3]
    assert len(Anchored(policies)) == 4


def random_match(rng: random.Random) -> Match:
    texts = [text(rng.choice(("ns", "other", "")), rng.choice(list(StringKind))) for _ in range(2)]
    whole = [text(f"td/ns/{rng.choice(('ns', 'x'))}/sa/{rng.choice(('sa', 'y'))}") for _ in range(2)]
    blocks = [IpBlock(f"10.0.{rng.randrange(3)}.0", 24), IpBlock("10.0.0.0", rng.choice((8, 16)))]
    choices: dict[str, list[Any]] = {
        "namespaces": texts,
        "principals": whole,
        "service_accounts": [ServiceAccountMatch("ns", rng.choice(("sa", "y")))],
        "source_ips": blocks,
        "destination_ports": [80, 443],
    }
    found: dict[str, tuple[Any, ...]] = {}
    for name, values in choices.items():
        for prefix in ("", "not_"):
            if rng.random() < 0.2:
                found[prefix + name] = tuple(rng.sample(values, rng.randint(1, len(values))))
    return Match(**found)


def random_policy(rng: random.Random) -> Authorization:
    return policy(
        *(
            tuple(tuple(random_match(rng) for _ in range(rng.randrange(3))) for _ in range(rng.randint(0, 3)))
            for _ in range(rng.randrange(3))
        )
    )


def test_nothing_that_matches_is_left_out() -> None:
    rng = random.Random(5)
    asked = total = 0
    for _ in range(300):
        policies = [random_policy(rng) for _ in range(5)]
        who = rng.choice((None, WHO, SpiffeId("td", "x", "y")))
        facts = Facts.of(who, f"10.0.{rng.randrange(3)}.2", Endpoint("10.0.0.1", rng.choice((80, 443))))
        found = [id(each) for each in Anchored(policies).may_match(facts)]
        for is_strict in (False, True):
            hits = [id(each) for each in policies if matches(each, facts, is_strict=is_strict)]
            assert set(hits) <= set(found)
        asked, total = asked + len(found), total + len(policies)
    assert asked < total, "some are left out"


def test_one_of_a_thousand_is_asked() -> None:
    policies = [
        policy(
            *(
                ((Match(destination_ports=(80,)),), (Match(principals=(text(f"td/ns/n{at}/sa/a{rule}"),)),))
                for rule in range(10)
            )
        )
        for at in range(1000)
    ]
    client = Facts.of(SpiffeId("td", "n7", "a3"), "10.0.1.2", Endpoint("10.0.0.1", 80))
    assert list(Anchored(policies).may_match(client)) == [policies[7]]
