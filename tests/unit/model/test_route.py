"""Routes as values."""

from tests.support.mesh import workload
from zproxy.model.addr import Endpoint
from zproxy.model.route import Role, Upstream


def test_beyond_a_gateway_the_endpoint_is_who_was_chosen() -> None:
    gateway = workload("demo/gateway", uid="gateway")
    route = Upstream(gateway, Endpoint("10.0.0.1", 15008), "web.test:80", ("spiffe://x",), 80)
    assert route.chosen == "gateway"
    assert route._replace(role=Role.GATEWAY, beyond="far").chosen == "far"
