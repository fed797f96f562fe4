"""Rules and routes are changed as `ip` sees them, and a refusal is the kernel's own."""

import socket

import pytest

from tests.support.netns import Namespace, batch
from tests.support.podstate import routes, rules, state_of
from zproxy.net import netlink_change
from zproxy.net.netlink import Rule

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
TABLE = 77


def rule(family: int) -> Rule:
    return Rule(family, priority=4321, mark=0xAB, mask=0xFFF, table=TABLE)


def flag(family: int) -> str:
    return "-6" if family == socket.AF_INET6 else "-4"


@families
def test_a_rule_comes_and_goes(pod: Namespace, family: int) -> None:
    before = state_of(pod)
    pod.run(lambda: netlink_change.add_rule(rule(family)))
    assert f"{flag(family)} 4321:\tfrom all fwmark 0xab/0xfff lookup 77" in rules(pod)
    assert len(rules(pod)) == sum(" lookup " in line for line in before) + 1
    pod.run(lambda: netlink_change.delete_rule(rule(family)))
    assert state_of(pod) == before


@families
def test_a_second_rule_of_the_same_kind_is_refused(pod: Namespace, family: int) -> None:
    pod.run(lambda: netlink_change.add_rule(rule(family)))
    with pytest.raises(FileExistsError):
        pod.run(lambda: netlink_change.add_rule(rule(family)))
    pod.run(lambda: netlink_change.delete_rule(rule(family)))
    with pytest.raises(FileNotFoundError):
        pod.run(lambda: netlink_change.delete_rule(rule(family)))


@families
def test_everything_in_a_table_is_local_until_it_is_not(pod: Namespace, family: int) -> None:
    before = state_of(pod)
    for _ in range(2):
        pod.run(lambda: netlink_change.put_local_route(family, TABLE))
        (route,) = routes(pod, str(TABLE))
        assert route.startswith(f"{flag(family)} local default dev lo ")
    pod.run(lambda: netlink_change.delete_local_route(family, TABLE))
    assert state_of(pod) == before
    with pytest.raises(ProcessLookupError):
        pod.run(lambda: netlink_change.delete_local_route(family, TABLE))


def test_what_the_kernel_refuses_is_its_own_error(pod: Namespace) -> None:
    batch(pod.name, ["link set lo down"])
    with pytest.raises(OSError, match="Network is down"):
        pod.run(lambda: netlink_change.put_local_route(socket.AF_INET6, TABLE))


@pytest.mark.parametrize(("prefix", "flag"), [("240.15.53.0/24", "-4"), ("fd16:9254:7127:1553::/64", "-6")])
def test_a_prefix_is_local_until_it_is_not(pod: Namespace, prefix: str, flag: str) -> None:
    own = pod.ip6 if flag == "-6" else pod.ip4
    index = pod.run(lambda: socket.if_nametoindex(pod.interface))
    for _ in range(2):
        pod.run(lambda: netlink_change.put_local_prefix(prefix, own, index))
    (found,) = [line for line in routes(pod, "local") if prefix in line]
    assert found.startswith(f"{flag} local {prefix} dev {pod.interface}")
    assert f"src {own}" in found
    pod.run(lambda: netlink_change.delete_local_prefix(prefix))
    assert [line for line in routes(pod, "local") if prefix in line] == []
    with pytest.raises(ProcessLookupError):
        pod.run(lambda: netlink_change.delete_local_prefix(prefix))
