"""What is to be done: by the state, whatever happened before."""

from typing import Any

import pytest

from tests.support.kubeobjects import kube_pod
from zproxy.kube.objects import Namespace, Pod, read_pod
from zproxy.kube.plan import Enrolled, Plan, dns_of, plan

AMBIENT, PLAIN = Namespace("ambient", ""), Namespace("", "")
REDIRECTED = {"ambient.istio.io/redirection": "enabled"}


def pod(**more: Any) -> Pod:
    return read_pod(kube_pod("demo/web", "10.0.0.1", uid="u1", **more))


def names(made: Plan) -> dict[str, list[str]]:
    found = {field: [getattr(each, "key", each) for each in getattr(made, field)] for field in made._fields}
    return {field: value for field, value in found.items() if value}


OURS = {"demo/web": Enrolled("u1", True)}
WEB = ["demo/web"]


@pytest.mark.parametrize(
    ("namespace", "more", "present", "ours", "expected"),
    [
        (AMBIENT, {}, set(), {}, {"enroll": WEB}),
        (AMBIENT, {}, {"demo/web"}, {}, {"enroll": WEB}),
        (AMBIENT, {}, {"demo/web"}, OURS, {"annotate": WEB}),
        (AMBIENT, {"annotations": REDIRECTED}, {"demo/web"}, OURS, {}),
        (AMBIENT, {"annotations": REDIRECTED}, set(), OURS, {"enroll": WEB}),
        (AMBIENT, {}, {"demo/web"}, {"demo/web": Enrolled("u0", True)}, {"enroll": WEB}),
        (
            AMBIENT,
            {"annotations": {"ambient.istio.io/dns-capture": "false"}},
            {"demo/web"},
            OURS,
            {"enroll": WEB},
        ),
        (PLAIN, {}, set(), {}, {}),
        (PLAIN, {}, {"demo/web"}, {}, {}),
        (PLAIN, {}, {"demo/web"}, OURS, {"unenroll": WEB}),
        (PLAIN, {"annotations": REDIRECTED}, {"demo/web"}, {}, {"unenroll": WEB}),
        (PLAIN, {"annotations": REDIRECTED}, set(), OURS, {"clear": WEB}),
        (AMBIENT, {"phase": "Failed", "annotations": REDIRECTED}, {"demo/web"}, OURS, {"unenroll": WEB}),
        (AMBIENT, {"phase": "Failed", "annotations": REDIRECTED}, set(), {}, {}),
        (AMBIENT, {"hostNetwork": True}, set(), {}, {}),
    ],
)
def test_one_pod(
    namespace: Namespace,
    more: dict[str, Any],
    present: set[str],
    ours: dict[str, Enrolled],
    expected: dict[str, list[str]],
) -> None:
    assert names(plan([(pod(**more), namespace)], present, ours)) == expected


def test_a_pod_that_kubernetes_no_longer_has_is_unenrolled_if_it_was_ours() -> None:
    ours = OURS | {"demo/gone": Enrolled("u2", True)}
    assert names(plan([], {"demo/web", "demo/by-hand"}, ours)) == {"unenroll": WEB}


def test_verification_enrols_what_is_wanted_once_more_and_nothing_else() -> None:
    pods = [(pod(annotations=REDIRECTED), AMBIENT), (read_pod(kube_pod("demo/other")), PLAIN)]
    assert names(plan(pods, {"demo/web"}, OURS, verify=True)) == {"enroll": WEB}


@pytest.mark.parametrize(("text", "dns"), [("true", True), ("false", False), ("", True)])
def test_dns(text: str, dns: bool) -> None:
    assert dns_of(pod(annotations={"ambient.istio.io/dns-capture": text})) is dns
