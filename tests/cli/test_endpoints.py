"""`zproxy endpoints`."""

from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.mesh import behind, mesh, service, workload
from zproxy.node.mesh_rows import endpoint_rows
from zproxy.proxy.balancer import WHOLE, Known, Standing

WEB = service("demo/web.test", "10.96.0.1")
ONE, TWO = (
    behind(workload(f"demo/{name}", ip), WEB) for name, ip in (("one", "10.0.0.1"), ("two", "10.0.0.2"))
)
ROWS = endpoint_rows(
    mesh(WEB, ONE, TWO),
    {
        0: [Known(ONE.uid, WHOLE, Standing(3, 0, 0.0)), Known(TWO.uid, 8080, Standing(0, 4, 17.26))],
        1: [Known(ONE.uid, WHOLE, Standing(1, 0, 0.0)), Known("gone", WHOLE, Standing(1, 0, 0.0))],
    },
)


def test_who_is_left_out_comes_first(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"endpoints": ROWS})
    assert zp("endpoints").stdout.splitlines() == [
        "ENDPOINT   SERVICES        PORT   CONNECTIONS   FAILURES   LEFT OUT",
        "demo/two   demo/web.test   8080   0             4          17.3",
        "demo/one   demo/web.test   all    3             0          0.0",
        "demo/one   demo/web.test   all    1             0          0.0",
    ]


def test_wide_says_which_worker(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"endpoints": ROWS})
    lines = zp("endpoints", "-o", "wide").stdout.splitlines()[1:]
    assert [line.split()[-2:] for line in lines] == [["0", TWO.uid], ["0", ONE.uid], ["1", ONE.uid]]


def test_where_nothing_is_known_there_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"endpoints": []})
    assert zp("endpoints").stderr == "No endpoint has connections of this node, and none has failed.\n"
