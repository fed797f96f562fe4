"""The part of drift that is in a pod's own network: loopback, rules, routes, sysctls. It only decides."""

from collections.abc import Iterator, Mapping, Sequence
from socket import AF_INET, AF_INET6
from typing import Final

from zproxy.config import SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_RULE_PRIORITY, SOURCE_TABLE
from zproxy.net.netlink import Route, Rule
from zproxy.node import aliases
from zproxy.node.facts import LOOPBACK, NetworkFacts
from zproxy.node.findings import Finding, Repair, Status
from zproxy.node.routes import RTN_LOCAL, SYSCTLS

FAMILY_NAMES: Final = {AF_INET: "IPv4", AF_INET6: "IPv6"}


def judge_network(network: NetworkFacts, *, dns: bool) -> Iterator[Finding]:
    """Yield a verdict on everything that brings the app's answers, and its queries, to the straw.

    `dns` says whether the pod's DNS is captured.
    """
    yield _loopback(network)
    yield from _rules(network)
    yield from _routes(network)
    if dns:
        yield from _aliases(network)
    yield _sysctls(network)


def _loopback(network: NetworkFacts) -> Finding:
    if any(each.name == LOOPBACK and each.is_up for each in network.interfaces):
        return Finding("loopback", Status.OK, "up")
    return Finding(
        "loopback", Status.MISSING, "lo is down: nothing reaches the listeners", "ip link set lo up"
    )


def _rules(network: NetworkFacts) -> Iterator[Finding]:
    wanted = {family: _our_rule(family) for family in FAMILY_NAMES}
    for family, name in FAMILY_NAMES.items():
        rules = [rule for rule in network.rules if rule.family == family]
        check = f"rule {name}"
        if not rules:
            yield Finding(check, Status.NOTE, f"this namespace has no {name}")
        elif wanted[family] not in rules:
            taken = [rule for rule in rules if _uses_our_numbers(rule)]
            remedy = f"`ip rule` in the pod shows who uses {SOURCE_RULE_PRIORITY} or table {SOURCE_TABLE}"
            yield Finding(
                check,
                Status.DRIFTED if taken else Status.MISSING,
                f"mark {SOURCE_MARK:#x} does not look up table {SOURCE_TABLE}: the app's answers are lost",
                remedy if taken else "",
                None if taken else Repair.NETWORK,
            )
        else:
            yield _before(check, rules)


def _our_rule(family: int) -> Rule:
    return Rule(family, SOURCE_RULE_PRIORITY, SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_TABLE)


def _uses_our_numbers(rule: Rule) -> bool:
    return rule.table == SOURCE_TABLE or rule.priority == SOURCE_RULE_PRIORITY


def _before(check: str, rules: list[Rule]) -> Finding:
    others = [rule for rule in rules if 0 < rule.priority < SOURCE_RULE_PRIORITY and _takes_ours(rule)]
    if others:
        listed = ", ".join(str(rule.priority) for rule in others)
        remedy = "where they route marked packets elsewhere, the app's answers are lost"
        return Finding(check, Status.NOTE, f"rules of others come before it: {listed}", remedy)
    return Finding(check, Status.OK, f"priority {SOURCE_RULE_PRIORITY}")


def _takes_ours(rule: Rule) -> bool:
    return (SOURCE_MARK & rule.mask) == rule.mark


def _routes(network: NetworkFacts) -> Iterator[Finding]:
    loopback = next((each.ifindex for each in network.interfaces if each.name == LOOPBACK), 0)
    for family, name in FAMILY_NAMES.items():
        check = f"route {name}"
        routes = [route for route in network.routes if route.family == family]
        if family == AF_INET6 and not network.has_ipv6:
            yield Finding(check, Status.NOTE, "IPv6 is off on lo")
        elif Route(family, RTN_LOCAL, 0, loopback) in routes:
            yield Finding(check, Status.OK, f"local default in table {SOURCE_TABLE}")
        else:
            detail = f"table {SOURCE_TABLE} has no local default: the app's answers are lost"
            repair = None if routes else Repair.NETWORK
            remedy = f"somebody else uses table {SOURCE_TABLE}" if routes else ""
            yield Finding(check, Status.DRIFTED if routes else Status.MISSING, detail, remedy, repair)


def _aliases(network: NetworkFacts) -> Iterator[Finding]:
    """Of the families that the pod has an address of; queries in another one are refused."""
    places = {each.ifindex: each.name for each in network.carriers}
    for family, name in FAMILY_NAMES.items():
        own = aliases.sources(network.ips, 6 if family == AF_INET6 else 4)
        found = [route for route in network.aliases if route.family == family]
        if not own:
            continue
        check = f"dns route {name}"
        if not found:
            detail = "resolvers' aliases are not local: the pod's queries are dropped"
            yield Finding(check, Status.MISSING, detail, "", Repair.NETWORK)
            continue
        faults = [fault for route in found for fault in _faults(route, places, own)]
        if faults:
            yield Finding(check, Status.DRIFTED, "; ".join(faults), "", Repair.NETWORK)
        else:
            where = places[found[0].out_index]
            yield Finding(check, Status.OK, f"resolvers' aliases are local at {where}")


def _faults(route: Route, places: Mapping[int, str], own: Sequence[str]) -> Iterator[str]:
    """Without a preferred source the kernel takes one of the pod's own, which is as good: IPv6 forgets it
    together with the address.
    """
    if route.type != RTN_LOCAL:
        yield f"resolvers' aliases have a route of type {route.type}, which is not local"
    if route.out_index not in places:
        yield f"resolvers' aliases are local at interface {route.out_index}, which has no address of the pod"
    if route.source and route.source not in own:
        yield f"queries come from {route.source} and the pod has {', '.join(own)}"


def _sysctls(network: NetworkFacts) -> Finding:
    wrong = [
        f"{name.replace('/', '.')} is {value}"
        for name, value in network.sysctls.items()
        if value != SYSCTLS[name]
    ]
    if wrong:
        return Finding("sysctls", Status.DRIFTED, ", ".join(wrong), "", Repair.NETWORK)
    return Finding("sysctls", Status.OK, f"{len(network.sysctls)} as wanted")
