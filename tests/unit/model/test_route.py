"""Routes as values."""

from tests.support.mesh import service, workload
from zproxy.model.addr import Endpoint
from zproxy.model.route import Role, Upstream


def test_beyond_a_gateway_the_endpoint_is_who_was_chosen() -> None:
    gateway = workload("demo/gateway", uid="gateway")
    route = Upstream(gateway, Endpoint("10.0.0.1", 15008), "web.test:80", ("spiffe://x",), 80)
    assert route.chosen == "gateway"
    assert route._replace(role=Role.GATEWAY, beyond="far").chosen == "far"


def test_what_was_dialled_as_itself_has_no_substitute() -> None:
    pod = workload("demo/pod")
    route = Upstream(pod, Endpoint("10.0.0.1", 15008), "10.0.0.1:8080", ("spiffe://x",), 8080)
    assert not route.is_choice
    assert route._replace(role=Role.WAYPOINT).is_choice
    assert route._replace(service=service("demo/web.test")).is_choice


def test_a_plain_endpoint_is_dialled_at_its_apps_port() -> None:
    pod = workload("demo/pod")
    assert Upstream(pod, Endpoint("10.0.0.1", 15008), "10.0.0.1:8080", ("x",), 8080).target_port == 8080
    assert Upstream(pod, Endpoint("10.0.0.1", 8080), "", (), 80).target_port == 8080
