"""`zproxy why` on two live nodes: it says what then happens, for names, policies and connections."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from tests.support.local_config import yaml_of
from tests.support.mesh import behind, service
from tests.support.nodes import App, Node, TwoNodes, echo_all, exchange, peer_echo, two_nodes, wait_for
from zproxy.model.policy import Action, Authorization, Match

pytestmark = pytest.mark.root

WEB = service("demo/web.demo.svc.cluster.local", "10.96.0.1", ports={80: 7501})
DENY = Authorization("deny", "demo", action=Action.DENY, rules=((((Match(destination_ports=(7502,))),),),))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("why"), options=("--outbound-policy", "registry_only")) as made:
        client, server = made.workloads()
        text = yaml_of(client, behind(server, WEB), WEB, DENY)
        for node in (made.a, made.b):
            node.config.write_text(text)
            wait_for(partial(node.client.call, "policies"), "the mesh is taken")
        yield made


def asked(node: Node, *words: str, status: int) -> dict[str, Any]:
    """Run `zproxy why -o json`, which must end with `status`."""
    done = node.cli("why", *words, "-o", "json")
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_service_by_name_may_be_reached_and_is(nodes: TwoNodes) -> None:
    found = asked(nodes.a, "demo/client", "web", status=0)
    assert found["sentence"] == (
        f"demo/client may reach 10.96.0.1:80: by HBONE to demo/server at {nodes.server.ip4}:15008, "
        "where no policy is against it"
    )
    with closing(App(nodes.server, 7501, peer_echo)):
        assert exchange(nodes.dial(80, "10.96.0.1"), b"x") == f"{nodes.client.ip4} x".encode()


def test_what_policy_refuses_is_refused_by_the_policy_that_is_named(nodes: TwoNodes) -> None:
    found = asked(nodes.a, "demo/client", f"{nodes.server.ip4}:7502", status=1)
    assert found["sentence"].endswith("demo/server answers 401: explicitly denied by: demo/deny")
    outcomes = [
        (step["subject"], step["outcome"]) for section in found["sections"] for step in section["steps"]
    ]
    assert ("policy", "matched") in outcomes
    with closing(App(nodes.server, 7502, echo_all)), pytest.raises(ConnectionError):
        exchange(nodes.dial(7502), b"x")
    assert "explicitly denied by: demo/deny" in nodes.b.access(f"{nodes.server.ip4}:7502")[-1]


def test_what_is_no_part_of_the_mesh_is_refused_by_its_own_node(nodes: TwoNodes) -> None:
    found = asked(nodes.a, "demo/client", "192.0.2.77:443", status=1)
    assert "its own node refuses it: 192.0.2.77:443 is no part of the mesh" in found["sentence"]
    with pytest.raises(ConnectionError):
        exchange(nodes.dial(443, "192.0.2.77"), b"x")


def test_a_live_connection_is_explained_on_both_nodes_and_after_its_end(nodes: TwoNodes) -> None:
    with closing(App(nodes.server, 7501, echo_all)), nodes.dial(80, "10.96.0.1") as held:
        held.sendall(b"x")
        for node, pod in ((nodes.a, "demo/client"), (nodes.b, "demo/server")):
            number = wait_for(partial(_open, node), "the connection is up")
            found = asked(node, "--connection", str(number), status=0)
            assert found["sentence"].startswith(f"connection {number} of {pod} is open; now it is allowed: ")
        number = _open(nodes.a)
        tunnels = asked(nodes.a, "demo/client", "web.demo:80", status=0)["sections"]
        assert [step["outcome"] for each in tunnels if each["title"] == "now" for step in each["steps"]][
            :1
        ] == ["open"]
        held.shutdown(socket.SHUT_WR)
        assert held.recv(10) == b"x"
    wait_for(lambda: not _open(nodes.a), "the connection has ended")
    found = asked(nodes.a, "--connection", str(number), status=0)
    assert f"connection {number} of demo/client has ended" in found["sentence"]


def test_the_text_ends_in_the_sentence_and_what_is_not_known_is_one(nodes: TwoNodes) -> None:
    done = nodes.a.cli("why", "demo/client", "demo/server:7501")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(
        f"demo/client may reach {nodes.server.ip4}:7501: by HBONE to "
    )
    unknown = nodes.a.cli("why", "demo/server", "web")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("Error: demo/server is not enrolled on node ")


def _open(node: Node) -> int:
    """Return the number of the one connection that is open, 0 if there is none."""
    rows = [row for row in node.client.call("connections") if row["state"] == "open"]
    return int(rows[0]["id"]) if rows else 0
