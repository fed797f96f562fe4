"""`zproxy metrics`."""

from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons

TEXT = '# TYPE zproxy_tunnels_open gauge\nzproxy_tunnels_open{role="client"} 1.0\n# EOF\n'


def test_the_daemons_text_is_printed_as_it_is(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"metrics": TEXT})
    assert zp("metrics").stdout == TEXT


def test_texts_of_several_daemons_are_never_mixed(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"metrics": TEXT}, node_b={"metrics": TEXT})
    result = zp("metrics")
    assert result.exit_code == 1
    assert "several daemons run here (node-a, node-b)" in result.stderr
    assert zp("metrics", "--node", "node-b").stdout == TEXT
