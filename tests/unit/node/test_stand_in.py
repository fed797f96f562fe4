"""The workload of a pod that was handed over: what was said of it, and what its namespace shows."""

import asyncio
from dataclasses import replace

import pytest

from tests.support.mesh import mesh
from tests.support.netns import namespace, pair
from tests.support.steering import NODE
from zproxy.errors import EnrollError
from zproxy.model.workload import Protocol, Workload
from zproxy.net.netns import Netns
from zproxy.node.records import Record
from zproxy.node.stand_in import Handed, stand_in

HANDED = Handed("uid-0", "demo", "client", "sa", "corp.example")


def test_it_is_a_workload_of_this_node() -> None:
    assert HANDED.workload(NODE) == Workload(
        "uid-0", "client", "demo", "sa", "corp.example", protocol=Protocol.HBONE, node=NODE
    )


def test_it_comes_back_from_the_record() -> None:
    record = Record("demo/client", "", 7, "sa", {}, handed="uid-0", trust_domain="corp.example")
    assert Handed.of(record) == HANDED


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "'' is not the name of a pod"),
        ({"name": "a/b"}, "'a/b' is not the name of a pod"),
        ({"namespace": "../x"}, "is not spiffe://"),
        ({"service_account": ""}, "is not spiffe://"),
        ({"trust_domain": "A"}, "is not spiffe://"),
    ],
)
def test_who_cannot_be_is_refused(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(EnrollError, match=says):
        HANDED._replace(**wrong).workload(NODE)


@pytest.mark.root
def test_its_addresses_are_those_of_the_namespace() -> None:
    with pair() as (pod, _):
        made = asyncio.run(stand_in(HANDED, NODE, pod.netns, mesh()))
    assert made == replace(HANDED.workload(NODE), workload_ips=pod.ips, is_awaited=True)


@pytest.mark.root
def test_a_namespace_without_an_address_is_refused() -> None:
    with namespace() as empty, pytest.raises(EnrollError, match="of demo/client has no address yet"):
        asyncio.run(stand_in(HANDED, NODE, empty.netns, mesh()))


@pytest.mark.root
def test_the_daemon_s_own_namespace_is_refused() -> None:
    with Netns.current() as own, pytest.raises(EnrollError, match="own network namespace"):
        asyncio.run(stand_in(HANDED, NODE, own, mesh()))
