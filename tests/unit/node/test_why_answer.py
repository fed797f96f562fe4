"""An answer is its sections in order, and a sentence."""

import json

from tests.support.mesh import workload
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Upstream
from zproxy.node.why_answer import Answer, route_text


def test_sections_stand_in_order_and_empty_ones_are_left_out() -> None:
    answer = Answer("demo/client", "web:80", "tcp")
    first, _ = answer.section("one"), answer.section("two")
    first.note("name", "found", "web is 10.96.0.1")
    whole = answer.ending("it may", is_allowed=True)
    assert whole == {
        "source": "demo/client",
        "destination": "web:80",
        "protocol": "tcp",
        "sections": [
            {
                "title": "one",
                "steps": [{"subject": "name", "outcome": "found", "detail": "web is 10.96.0.1", "depth": 0}],
            }
        ],
        "allowed": True,
        "sentence": "it may",
    }
    assert json.loads(json.dumps(whole)) == whole


def test_a_route_in_a_few_words() -> None:
    pod, at = workload("demo/pod", "10.0.0.2"), Endpoint("10.0.0.2", 15008)
    assert route_text(Refuse("nobody is there")) == "refused, nobody is there"
    assert route_text(Passthrough(at)) == "past the mesh to 10.0.0.2:15008"
    way = Upstream(pod, at, "10.0.0.2:80", ("spiffe://td/x",), 80, role=Role.WAYPOINT)
    assert route_text(way) == "HBONE to the waypoint demo/pod at 10.0.0.2:15008"
    plain = Upstream(pod, Endpoint("", 80), "", (), 80, hostname="pod.test")
    assert route_text(plain) == "plain TCP to the destination demo/pod at pod.test"
