"""Services as values: keys, ports, families, visibility."""

import pytest

from zproxy.model.service import (
    GatewayAddress,
    IpFamilies,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Service,
    Visibility,
)


def test_texts_are_those_of_the_local_configuration() -> None:
    assert str(NetworkAddress("", "10.0.0.1")) == "/10.0.0.1"
    assert str(NetworkCidr("net1", "10.0.0.0", 8)) == "net1/10.0.0.0/8"
    assert str(GatewayAddress(NamespacedHostname("demo", "gw.test"))) == "demo/gw.test:15008"


def test_a_target_port_may_be_the_endpoints_to_say_or_unknown() -> None:
    service = Service("web", "demo", "web.test", ports=((80, 8080), (443, 0)))
    assert [service.target_port(port) for port in (80, 443, 81)] == [8080, 0, None]
    assert service.key == "demo/web.test"


@pytest.mark.parametrize(
    ("families", "v4", "v6"),
    [
        (IpFamilies.AUTOMATIC, True, True),
        (IpFamilies.DUAL, True, True),
        (IpFamilies.IPV4_ONLY, True, False),
        (IpFamilies.IPV6_ONLY, False, True),
    ],
)
def test_families(families: IpFamilies, v4: bool, v6: bool) -> None:
    assert (families.allows("10.0.0.1"), families.allows("fd00::1")) == (v4, v6)


def test_a_service_of_its_namespace_is_hidden_from_others_whose_namespace_is_known() -> None:
    private = Service("web", "demo", "web.test", visibility=Visibility.NAMESPACE)
    assert [private.is_visible_to(who) for who in ("demo", "other", None)] == [True, False, True]
    assert Service("web", "demo", "web.test").is_visible_to("other")
