"""`zproxy policies`: istioctl's columns; rules with -o yaml."""

from collections.abc import Callable

import yaml
from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.mesh import mesh, workload
from zproxy.model.policy import Action, Authorization, Match, PolicyScope
from zproxy.node.mesh_rows import policy_rows

DENY = Authorization(
    "deny", "demo", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (((Match(destination_ports=(80,)),),),)
)
ROWS = policy_rows(mesh(DENY, Authorization("allow", "demo"), workload("demo/pod")))


def test_the_columns_are_those_of_istioctl(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"policies": ROWS}, node_b={"policies": ROWS})
    assert zp("policies").stdout.splitlines() == [
        "NAMESPACE   POLICY NAME   ACTION   SCOPE",
        "demo        allow         Allow    Namespace",
        "demo        deny          Deny     WorkloadSelector",
    ]


def test_wide_says_whether_a_policy_does_anything(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"policies": ROWS})
    lines = zp("policies", "-o", "wide").stdout.splitlines()
    assert [line.split()[4:] for line in lines[1:]] == [["no", "0", "-", "-"], ["no", "1", "0", "-"]]


def test_yaml_shows_the_rules(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"policies": ROWS})
    allow, deny = yaml.safe_load(zp("policies", "-o", "yaml").stdout)
    assert (allow["rules"], deny["rules"]) == ([], [[[{"destination_ports": [80]}]]])


def test_a_mesh_without_policies_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"policies": []})
    assert zp("policies").stderr == "The mesh has no policies.\n"
