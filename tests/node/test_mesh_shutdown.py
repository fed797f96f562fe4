"""The end of a server pod, as its client sees it: nothing is answered any more, and nothing hangs."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.support.nodes import App, enduring, exchange, peer_echo, two_nodes, wait_for
from tests.support.steered import settled

pytestmark = pytest.mark.root


def test_after_a_pod_is_gone_reads_fail_and_so_do_connections_that_it_had(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as nodes, closing(App(nodes.server, 7601, enduring(peer_echo))):
        held = nodes.dial(7601)
        assert exchange(nodes.dial(7601), b"x").endswith(b" x")
        wait_for(lambda: nodes.b.client.call("status")["connections_open"] >= 1, "the connection is up")
        nodes.b.client.call("unenroll", pod="demo/server")
        with pytest.raises(ConnectionError):
            exchange(held, b"still there?")
        with pytest.raises(ConnectionError):
            exchange(nodes.dial(7601), b"anybody?")
        assert settled(nodes.a, nodes.client) == (0, 3, 0, 0), "no connection was let out or turned back"
        assert nodes.b.dump("zp_podstat") == []
        lines = nodes.a.access(f"dst.hbone_addr={nodes.server.ip4}:7601 ", 3)
        assert sorted("error=" in line for line in lines) == [False, True, True]
        assert "nothing listens there" in lines[-1]
