"""`zproxy services`: istioctl's columns, and more with -o wide."""

import json
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.mesh import behind, mesh, service, workload
from zproxy.node.mesh_rows import service_rows

WEB = service("demo/web.demo.svc.cluster.local", "10.96.0.1", canonical=True)
ROWS = service_rows(mesh(WEB, behind(workload("demo/pod", "10.0.0.1"), WEB), service("demo/away.test")))


def test_the_columns_are_those_of_istioctl(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"services": ROWS})
    assert zp("services").stdout.splitlines() == [
        "NAMESPACE   SERVICE NAME   SERVICE VIP   WAYPOINT   ENDPOINTS",
        "demo        away           -             None       0/0",
        "demo        web            10.96.0.1     None       1/1",
    ]


def test_wide_says_where_it_leads(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"services": ROWS})
    line = zp("services", "-o", "wide").stdout.splitlines()[2]
    assert line.split()[5:] == ["web.demo.svc.cluster.local", "80:8080", "Standard", "Public", "yes", "-"]


def test_what_daemons_agree_about_is_listed_once(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"services": ROWS}, node_b={"services": [ROWS[1] | {"endpoints": "0/1"}, ROWS[0]]})
    rows = json.loads(zp("services", "-o", "json").stdout)
    assert [(row["name"], row["endpoints"]) for row in rows] == [
        ("away", "0/0"),
        ("web", "1/1"),
        ("web", "0/1"),
    ]


def test_a_mesh_without_services_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"services": []})
    assert zp("services").stderr == "The mesh has no services.\n"
