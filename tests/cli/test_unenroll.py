"""`zproxy unenroll`."""

from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.daemons import Call
from zproxy.errors import EnrollError

ROW = {"pod": "demo/client", "state": "gone", "ips": ["10.244.1.5"], "node": "node-a"}


def test_the_daemon_lets_the_pod_out(start: StartDaemons, zp: Callable[..., Result]) -> None:
    daemons = start(node_a={"unenroll": ROW})
    result = zp("unenroll", "demo/client")
    assert result.stdout.splitlines()[1].split() == ["demo/client", "gone", "10.244.1.5", "node-a"]
    assert daemons.calls == [Call("node-a", "unenroll", {"pod": "demo/client"})]


def test_a_pod_that_is_not_enrolled_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"unenroll": EnrollError("demo/client is not enrolled")})
    result = zp("unenroll", "demo/client")
    assert (result.exit_code, result.stderr) == (1, "Error: demo/client is not enrolled\n")
