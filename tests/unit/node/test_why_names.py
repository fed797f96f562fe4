"""What a destination means: every form in which one can write it, and what nobody can mean."""

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.errors import ConfigError
from zproxy.model.service import Visibility
from zproxy.node.why_names import Asked, meaning, parse
from zproxy.state.names import Asker
from zproxy.state.trace import Trace

SOURCE = workload("demo/client", "10.0.0.1")
ASKER = Asker(SOURCE)
POD = workload("demo/pod", "10.0.0.2", "fd00::2")
WEB = service("demo/web.demo.svc.cluster.local", "10.96.0.1")
HEADLESS = service("demo/db.demo.svc.cluster.local")
WILD = service("demo/*.wild.example.com", "10.96.0.3")
OUTSIDE = service("demo/outside.example.com")
HIDDEN = service("shop/cart.shop.svc.cluster.local", "10.96.0.4", visibility=Visibility.NAMESPACE)
MESH = mesh(SOURCE, behind(POD, HEADLESS), workload("demo/gone"), WEB, HEADLESS, WILD, HIDDEN, OUTSIDE)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("10.0.0.2", Asked("10.0.0.2", None, is_ip=True)),
        ("10.0.0.2:80", Asked("10.0.0.2", 80, is_ip=True)),
        ("FD00:0::2", Asked("fd00::2", None, is_ip=True)),
        ("[fd00::2]", Asked("fd00::2", None, is_ip=True)),
        ("[fd00::2]:80", Asked("fd00::2", 80, is_ip=True)),
        ("::ffff:10.0.0.2", Asked("10.0.0.2", None, is_ip=True)),
        ("demo/pod:80", Asked("demo/pod", 80, is_ip=False)),
        ("Web.demo.:80", Asked("web.demo", 80, is_ip=False)),
        ("web", Asked("web", None, is_ip=False)),
    ],
)
def test_a_destination_has_many_forms(text: str, asked: Asked) -> None:
    assert parse(text) == asked


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("web:0", "'0' is no port; write one from 1 to 65535"),
        ("web:http", "'http' is no port"),
        ("a b:80", "'a b:80' is no destination"),
        (":80", "':80' is no destination"),
        ("", "'' is no destination"),
    ],
)
def test_what_is_no_destination_is_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ips"),
    [
        ("10.1.2.3", ("10.1.2.3",)),
        ("demo/pod", ("10.0.0.2", "fd00::2")),
        ("web", ("10.96.0.1",)),
        ("web.demo", ("10.96.0.1",)),
        ("web.demo.svc", ("10.96.0.1",)),
        ("web.demo.svc.cluster.local", ("10.96.0.1",)),
        ("demo/web", ("10.96.0.1",)),
        ("demo/web.demo.svc.cluster.local", ("10.96.0.1",)),
        ("db", ("10.0.0.2", "fd00::2")),
        ("pod.db", ("10.0.0.2", "fd00::2")),
        ("outside.example.com", ()),
        ("demo/outside.example.com", ()),
        ("a.b.wild.example.com", ("10.96.0.3",)),
        ("a.wild.example.com.demo.svc.cluster.local", ("10.96.0.3",)),
        ("cart.shop", ()),
        ("example.com", ()),
    ],
)
def test_names_are_answered_as_the_pod_s_resolver_would_have_them(text: str, ips: tuple[str, ...]) -> None:
    assert meaning(MESH, ASKER, parse(text), Trace()).ips == ips


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("demo/nobody", "unknown destination demo/nobody: `zproxy workloads` and `zproxy services` list"),
        ("demo/gone", "demo/gone has no address that an app could dial"),
    ],
)
def test_what_cannot_be_dialled_is_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meaning(MESH, ASKER, parse(text), Trace())
    assert says in str(caught.value)


def test_a_service_without_any_address_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="has neither an address here nor endpoints with one"):
        meaning(mesh(HEADLESS), ASKER, parse("db"), Trace())


def test_the_trace_says_what_was_tried() -> None:
    trace = Trace()
    meaning(MESH, ASKER, parse("web"), trace)
    assert [(step.subject, step.outcome) for step in trace.steps] == [
        ("name", "no match"),
        ("service", "found"),
        ("service", "means"),
    ]
