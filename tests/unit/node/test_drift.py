"""One thing of a healthy pod is spoilt: exactly its check says so, and names the repair or a remedy."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.drift import (
    ENTRY,
    ETH0,
    HEALTHY,
    INGRESS,
    LO,
    LOOKUP,
    NETWORK,
    PROGRAMS,
    STEERING,
    WANTED,
)
from zproxy.model.pod import PodOptions
from zproxy.net.netlink import Address, Listening, Route, Rule
from zproxy.node.drift import judge, judge_node
from zproxy.node.facts import PodFacts
from zproxy.node.findings import Finding, Repair, Status
from zproxy.steering.info import LinkInfo
from zproxy.steering.inspect_pod import LinkFact, NodeFacts, ObjectFact

TCX = "tcx_ingress-eth0"
M, D, N = Status.MISSING, Status.DRIFTED, Status.NOTE


def network(**changes: Any) -> PodFacts:
    return HEALTHY._replace(network=NETWORK._replace(**changes))


def steering(**changes: Any) -> PodFacts:
    return HEALTHY._replace(steering=STEERING._replace(**changes))


def entry(**changes: Any) -> PodFacts:
    return steering(entry=ENTRY._replace(**changes))


def ingress(**changes: Any) -> PodFacts:
    return steering(links=(LOOKUP, INGRESS._replace(**changes)))


def info(**changes: Any) -> LinkInfo:
    assert INGRESS.found is not None
    return INGRESS.found._replace(**changes)


def without(family: int, **what: tuple[Any, ...]) -> PodFacts:
    (name,) = what
    return network(**{name: tuple(each for each in what[name] if each.family != family or not _ours(each))})


def _ours(each: Rule | Route) -> bool:
    return not isinstance(each, Rule) or each.table == 100


def alias(**changes: Any) -> PodFacts:
    four, six = NETWORK.aliases
    return network(aliases=(four._replace(**changes), six))


def unlike(facts: PodFacts) -> list[Finding]:
    return [finding for finding in judge(WANTED, facts) if finding.status is not Status.OK]


def test_a_healthy_pod_has_nothing_but_ok() -> None:
    findings = judge(WANTED, HEALTHY)
    assert {finding.status for finding in findings} == {Status.OK}
    assert [finding.check for finding in findings] == [
        "pod entry",
        "addresses",
        "sk_lookup",
        "tcx_ingress-eth0",
        "counters",
        "listener 15001",
        "listener 15006",
        "listener 15008",
        "listener 15053",
        "listener 15053/udp",
        "listener slot",
        "loopback",
        "rule IPv4",
        "rule IPv6",
        "route IPv4",
        "route IPv6",
        "dns route IPv4",
        "dns route IPv6",
        "sysctls",
    ]


@dataclass(frozen=True)
class Case:
    facts: PodFacts
    check: str
    status: Status
    repair: Repair | None
    words: str


TWICE = Listening(10, 15008, 1, 999, 0, 1024)
OTHERS = tuple(each for each in NETWORK.listening if each.port != 15008)
FULL = NETWORK.listening[2]._replace(waiting=1025)
CASES = {
    "entry with other addresses": Case(entry(ip4="10.0.0.9"), "pod entry", D, Repair.STEERING, "10.0.0.9"),
    "entry without a family": Case(entry(ip6=""), "pod entry", D, Repair.STEERING, "sent to nothing"),
    "entry of another name": Case(entry(name="demo/x"), "pod entry", D, Repair.STEERING, "demo/x"),
    "entry with other ports": Case(entry(outbound_port=80), "pod entry", D, Repair.STEERING, "ports"),
    "other options": Case(
        entry(options=PodOptions(fail_open=True)), "pod entry", D, Repair.STEERING, "options are others"
    ),
    "address not known": Case(
        steering(slots={"10.0.0.1": 3}), "addresses", M, Repair.STEERING, "not steered: fd00::1"
    ),
    "address of a former interface": Case(
        steering(slots={**STEERING.slots, "10.9.9.9": 3}), "addresses", D, Repair.STEERING, "10.9.9.9"
    ),
    "address in another slot": Case(
        steering(slots={"10.0.0.1": 4, "fd00::1": 3}), "addresses", D, Repair.STEERING, "10.0.0.1"
    ),
    "link not pinned": Case(ingress(found=None), TCX, M, Repair.STEERING, "no link is pinned"),
    "link dead": Case(ingress(found=info(target=0)), TCX, M, Repair.STEERING, "is dead"),
    "link elsewhere": Case(ingress(found=info(target=8)), TCX, D, Repair.STEERING, "hangs on 8"),
    "link with another program": Case(
        ingress(found=info(prog_id=1)), TCX, D, Repair.STEERING, "runs program 1"
    ),
    "not attached": Case(ingress(attached=(1,)), TCX, M, Repair.STEERING, "does not run at eth0"),
    "others before it": Case(ingress(attached=(1, PROGRAMS["zp_ingress"])), TCX, N, None, "run before it: 1"),
    "links of former interfaces": Case(
        steering(strays=("tcx_ingress-eth9",)), "other links", D, Repair.STEERING, "tcx_ingress-eth9"
    ),
    "no counters": Case(steering(has_counters=False), "counters", M, Repair.STEERING, "zp_podstat"),
    "no listener": Case(network(listening=OTHERS), "listener 15008", M, Repair.LISTENERS, "nobody listens"),
    "a stranger's listener": Case(
        network(listening=(*OTHERS, TWICE)),
        "listener 15008",
        M,
        Repair.LISTENERS,
        "somebody else",
    ),
    "nobody accepts": Case(
        network(listening=(*OTHERS, FULL)), "listener 15008", D, None, "1025 connections wait"
    ),
    "no queries by UDP": Case(
        network(datagrams=()), "listener 15053/udp", M, Repair.LISTENERS, "nobody takes queries"
    ),
    "a stranger takes queries": Case(
        network(datagrams=(999,)), "listener 15053/udp", M, Repair.LISTENERS, "somebody else"
    ),
    "empty slot": Case(steering(listener=0), "listener slot", M, Repair.STEERING, "no socket"),
    "another socket in the slot": Case(steering(listener=1), "listener slot", D, Repair.STEERING, "1 is no"),
    "lo down": Case(network(interfaces=(LO._replace(is_up=False), ETH0)), "loopback", M, None, "lo is down"),
    "rule gone": Case(without(2, rules=NETWORK.rules), "rule IPv4", M, Repair.NETWORK, "answers are lost"),
    "rule of IPv6 gone": Case(without(10, rules=NETWORK.rules), "rule IPv6", M, Repair.NETWORK, "answers"),
    "number taken": Case(
        network(rules=(*NETWORK.rules[2:], Rule(2, 32764, 1, 1, 7))), "rule IPv4", D, None, "does not look up"
    ),
    "a rule before ours": Case(
        network(rules=(*NETWORK.rules, Rule(2, 10, 0x111, 0xFFF, 254))), "rule IPv4", N, None, "before it: 10"
    ),
    "route gone": Case(without(2, routes=NETWORK.routes), "route IPv4", M, Repair.NETWORK, "local default"),
    "another route there": Case(
        network(routes=(Route(2, 1, 24, 7), NETWORK.routes[1])), "route IPv4", D, None, "local default"
    ),
    "aliases lead nowhere": Case(
        without(2, aliases=NETWORK.aliases), "dns route IPv4", M, Repair.NETWORK, "queries are dropped"
    ),
    "aliases of IPv6 lead nowhere": Case(
        without(10, aliases=NETWORK.aliases), "dns route IPv6", M, Repair.NETWORK, "queries are dropped"
    ),
    "aliases with a former source": Case(
        alias(source="10.0.0.9"),
        "dns route IPv4",
        D,
        Repair.NETWORK,
        "from 10.0.0.9 and the pod has 10.0.0.1",
    ),
    "aliases at a former interface": Case(
        alias(out_index=9), "dns route IPv4", D, Repair.NETWORK, "interface 9"
    ),
    "aliases elsewhere": Case(alias(type=1), "dns route IPv4", D, Repair.NETWORK, "type 1"),
    "IPv6 off on lo": Case(network(has_ipv6=False, routes=NETWORK.routes[:1]), "route IPv6", N, None, "off"),
    "no IPv6 at all": Case(
        network(rules=NETWORK.rules[:2]), "rule IPv6", N, None, "this namespace has no IPv6"
    ),
    "sysctl": Case(
        network(sysctls={"net/ipv4/tcp_tw_reuse": "0"}),
        "sysctls",
        D,
        Repair.NETWORK,
        "tcp_tw_reuse is 0",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_spoilt_is_found_by_its_own_check_and_no_other(case: Case) -> None:
    (finding,) = unlike(case.facts)
    assert (finding.check, finding.status, finding.repair) == (case.check, case.status, case.repair)
    assert case.words in finding.detail
    assert finding.repair is not None or finding.remedy or finding.status is N


def test_without_an_entry_nothing_is_steered() -> None:
    findings = {finding.check: finding for finding in unlike(steering(entry=None))}
    assert findings["pod entry"].status is M
    assert findings["pod entry"].repair is Repair.STEERING


def test_a_pod_that_lost_all_addresses_is_for_people_and_keeps_what_it_has() -> None:
    findings = unlike(network(addresses=()))
    assert [(finding.check, finding.repair) for finding in findings] == [("addresses", None)]
    assert "addresses back" in findings[0].remedy


def test_a_new_address_is_missing_until_it_is_steered() -> None:
    more = (*NETWORK.addresses, Address(ETH0.ifindex, "10.0.0.2"))
    (finding,) = unlike(network(addresses=more))
    assert finding.detail.endswith("not steered: 10.0.0.2")


def test_a_link_local_address_is_no_destination() -> None:
    facts = network(addresses=(NETWORK.addresses[0], Address(ETH0.ifindex, "fe80::1")))
    facts = facts._replace(
        steering=STEERING._replace(entry=ENTRY._replace(ip6=""), slots={"10.0.0.1": 3, "fe80::1": 3})
    )
    assert unlike(facts) == []


def test_aliases_of_a_family_that_the_pod_has_not_are_not_missed() -> None:
    facts = network(addresses=NETWORK.addresses[:1], aliases=NETWORK.aliases[:1])
    facts = facts._replace(steering=STEERING._replace(entry=ENTRY._replace(ip6=""), slots={"10.0.0.1": 3}))
    assert unlike(facts) == []


def test_the_kernel_may_choose_the_source_of_queries() -> None:
    assert unlike(alias(source="")) == []


def test_a_pod_whose_dns_is_left_alone_needs_no_aliases() -> None:
    options = PodOptions(dns=False)
    facts = network(aliases=())._replace(steering=STEERING._replace(entry=ENTRY._replace(options=options)))
    findings = judge(WANTED._replace(options=options), facts)
    assert {finding.status for finding in findings} == {Status.OK}
    assert not any(finding.check.startswith("dns") for finding in findings)


def test_whose_listeners_they_are_may_be_unknown() -> None:
    findings = judge(WANTED._replace(owned=None), HEALTHY)
    assert all(finding.status is Status.OK for finding in findings)


HOOK = LinkFact("connect4", "zp_connect4", "the cgroup root", 1, LinkInfo(3, 5, 20, 1, 10))
NODE = NodeFacts((ObjectFact("zp_pods", 10, 10),), (ObjectFact("zp_connect4", 20, 20, "cafe"),), (HOOK,))


def test_a_healthy_node_shows_programs_with_their_tags() -> None:
    findings = judge_node(NODE)
    assert [(finding.check, finding.status) for finding in findings] == [
        ("maps", Status.OK),
        ("programs", Status.OK),
        ("hook connect4", Status.OK),
    ]
    assert findings[2].detail == "link 5 at the cgroup root, program 20, tag cafe"


@pytest.mark.parametrize(
    ("facts", "check", "status", "repair"),
    [
        (NODE._replace(maps=(ObjectFact("zp_pods", 10, 0),)), "maps", M, Repair.HOOKS),
        (NODE._replace(maps=(ObjectFact("zp_pods", 10, 11),)), "maps", D, None),
        (NODE._replace(programs=(ObjectFact("zp_connect4", 20, 0),)), "programs", M, Repair.HOOKS),
        (NODE._replace(links=(HOOK._replace(found=None),)), "hook connect4", M, Repair.HOOKS),
        (NODE._replace(links=(HOOK._replace(target=2),)), "hook connect4", D, Repair.HOOKS),
        (NODE._replace(links=(HOOK._replace(target=0),)), "hook connect4", Status.OK, None),
    ],
)
def test_what_of_a_node_is_spoilt_is_found(
    facts: NodeFacts, check: str, status: Status, repair: Repair | None
) -> None:
    finding = next(finding for finding in judge_node(facts) if finding.check == check)
    assert (finding.status, finding.repair) == (status, repair)
