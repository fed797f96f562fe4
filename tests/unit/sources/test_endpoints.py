"""Endpoints of services, as a config dump of ztunnel has them."""

from pathlib import Path

import pytest

from tests.support.mesh import workload
from zproxy.errors import ConfigError
from zproxy.model.workload import ServicePort, Status
from zproxy.sources.document import Place
from zproxy.sources.endpoints import with_endpoints
from zproxy.sources.services import Endpoint

HERE = Place(Path("mesh.yaml"), 7, "services[0].endpoints[uid]")
WEB = "demo/web.test"
PORTS = (ServicePort(WEB, 80, 8080),)
POD = workload("demo/pod", "10.0.0.1")
OTHER = workload("demo/other", "10.0.0.2")


def told(uid: str = POD.uid, status: Status | None = None) -> Endpoint:
    return Endpoint(uid, PORTS, status, HERE)


def test_a_workload_becomes_an_endpoint_of_the_services_that_say_so() -> None:
    shop = (ServicePort("demo/shop.test", 443, 8443),)
    pod, other = with_endpoints(
        [POD, OTHER],
        [(WEB, told(status=Status.HEALTHY)), ("demo/shop.test", Endpoint(POD.uid, shop, None, HERE))],
    )
    assert pod.services == (WEB, "demo/shop.test")
    assert pod.service_ports == (*PORTS, *shop)
    assert other is OTHER


def test_what_a_workload_says_of_itself_has_the_first_word() -> None:
    own = workload("demo/pod", services=(WEB,), service_ports=(ServicePort(WEB, 80, 9090),))
    assert with_endpoints([own], [(WEB, told())]) == [own]


def test_ports_that_a_workload_leaves_to_the_service_are_the_service_s() -> None:
    (pod,) = with_endpoints([workload("demo/pod", services=(WEB, "demo/a.test"))], [(WEB, told())])
    assert (pod.services, pod.service_ports) == ((WEB, "demo/a.test"), PORTS)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        (told("nobody"), "there is no workload of this uid; name one of the list `workloads:`"),
        (told(status=Status.UNHEALTHY), "the workload says Healthy; say it there only, for all its services"),
    ],
    ids=["unknown", "status"],
)
def test_what_does_not_fit_is_refused_with_its_place(endpoint: Endpoint, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_endpoints([POD], [(WEB, endpoint)])
    assert str(caught.value) == f"mesh.yaml:7: services[0].endpoints[uid]: {says}"
