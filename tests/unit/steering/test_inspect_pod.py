"""What the inspector says of a node and a pod is what was attached there."""

import os
from collections.abc import Iterator

import pytest

from tests.support.netns import PREFIX
from tests.support.steering import socket_cookie
from tests.support.straw import Straw
from zproxy.net import netlink
from zproxy.net.netlink import Interface
from zproxy.steering import syscall
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.inspect_pod import SteeringFacts
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

PINS = NodePins(f"{PREFIX}unit")


@pytest.fixture
def enrolled(steering: Steering, straw: Straw) -> Iterator[Straw]:
    steering.attach(straw.steering())
    yield straw
    steering.detach(straw.steering().cookie)


def eth0(straw: Straw) -> Interface:
    return next(each for each in straw.pod.run(netlink.interfaces) if each.name == "eth0")


def facts(steering: Steering, straw: Straw) -> SteeringFacts:
    wanted = straw.steering()
    return steering.inspector.pod(wanted.cookie, wanted.netns, [eth0(straw)], (*wanted.ips, "10.9.9.9"))


def test_an_enrolled_pod_is_described_whole(steering: Steering, enrolled: Straw) -> None:
    found, wanted = facts(steering, enrolled), enrolled.steering()
    assert found.entry in steering.pods()
    assert found.entry is not None
    assert found.slots == dict.fromkeys(enrolled.pod.ips, found.entry.slot)
    assert found.listener == socket_cookie(wanted.plaintext_listener)
    assert (found.has_counters, found.strays) == (True, ())
    programs = steering.inspector.programs()
    for link in found.links:
        assert link.found is not None
        assert (link.found.prog_id, link.found.target) == (programs[link.program], link.target)
        assert programs[link.program] in link.attached
    assert {link.pin for link in found.links} == {"sk_lookup", "tcx_egress-eth0", "tcx_ingress-eth0"}


def test_what_is_not_there_is_said_to_be_not_there(steering: Steering, straw: Straw) -> None:
    found = facts(steering, straw)
    assert (found.entry, dict(found.slots), found.listener, found.has_counters) == (None, {}, 0, False)
    assert [(link.found, link.attached) for link in found.links] == [(None, ())] * len(found.links)


def test_a_stray_pin_and_one_that_is_no_link_are_seen(steering: Steering, enrolled: Straw) -> None:
    directory = PINS.pod(enrolled.steering().cookie)
    (directory / "tcx_ingress-eth0").rename(directory / "tcx_ingress-eth9")
    program = syscall.obj_get(PINS.programs / "zp_ingress")
    syscall.obj_pin(program, directory / "tcx_ingress-eth0")
    os.close(program)
    found = facts(steering, enrolled)
    assert found.strays == ("tcx_ingress-eth9",)
    link = next(link for link in found.links if link.pin == "tcx_ingress-eth0")
    assert link.found is None
    assert link.attached, "the program runs all the same"
    (directory / "tcx_ingress-eth0").unlink()


def test_traces_claims_and_entries_are_of_all_pods(steering: Steering, enrolled: Straw) -> None:
    cookie, inspector = enrolled.steering().cookie, steering.inspector
    assert inspector.traces() == {cookie}
    assert {each: set(ips) for each, ips in inspector.claims().items()} == {cookie: set(enrolled.pod.ips)}
    assert [entry.cookie for entry in inspector.entries()] == [cookie]


def test_a_node_is_described_and_mended(steering: Steering) -> None:
    before = steering.node_facts()
    assert all(each.id == each.pinned for each in (*before.maps, *before.programs))
    assert all(len(each.tag) == 16 for each in before.programs)
    serving = [name for name, hook in HOOKS.items() if hook.place in (Place.ROOT, Place.OWN)]
    assert [link.program for link in before.links] == serving
    for path in (PINS.maps / "zp_pods", PINS.programs / "zp_lookup", PINS.links / "connect4"):
        path.unlink()
    gone = steering.node_facts()
    assert [each.name for each in (*gone.maps, *gone.programs) if not each.pinned] == ["zp_pods", "zp_lookup"]
    assert [link.pin for link in gone.links if link.found is None] == ["connect4"]
    steering.mend()
    after = steering.node_facts()
    assert (after.maps, after.programs) == (before.maps, before.programs)
    assert all(link.found is not None for link in after.links)
