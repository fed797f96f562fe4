"""Why a connection is where it is: what was decided, and whether it would be so now."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.support.mesh import mesh, workload
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.identity import SpiffeId
from zproxy.model.policy import Action, Authorization
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.node.why_connection import Seen, explained
from zproxy.node.why_ways import Ground
from zproxy.observe.connections import Connection, Peers
from zproxy.observe.series import Party
from zproxy.state.policy import authorize
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh

CLIENT, SERVER = workload("demo/client", "10.0.0.1"), workload("demo/server", "10.0.0.2")
BOTH = mesh(CLIENT, SERVER)
DENY = Authorization("deny", "demo", action=Action.DENY, rules=((),))
SRC, TO = Endpoint("10.0.0.1", 4711), Endpoint("10.0.0.2", 8080)
ROUTE: Any = resolve(BOTH, CLIENT, TO)
SENT = Seen("demo/client", True, "open", "", SRC, ROUTE.address, TO, ROUTE.authority, 3, ROUTE, None, True)
CAME = Seen(
    "demo/server", False, "open", "", SRC, ROUTE.address, TO, ROUTE.authority, 3, None, CLIENT.identity, True
)


def explain(seen: Seen, known: Mesh = BOTH) -> dict[str, Any]:
    decide = partial(authorize, DEFAULT_SETTINGS.compat)
    return explained(Ground(known, DEFAULT_SETTINGS, decide), 7, seen)


def titles(answer: dict[str, Any]) -> list[str]:
    return [section["title"] for section in answer["sections"]]


def test_a_record_is_read_as_it_is() -> None:
    connection = Connection(7, "demo/server", Direction.INBOUND, SRC, ROUTE.address)
    assert Seen.of(connection)[:4] == ("demo/server", False, "open", "")
    assert not Seen.of(connection).has_peers
    connection.peers = Peers(Party(Direction.INBOUND, CLIENT, SERVER, CLIENT.identity, SERVER.identity, ""))
    connection.wanted, connection.hbone_addr, connection.tunnel = TO, ROUTE.authority, 3
    assert Seen.of(connection) == CAME


def test_an_open_one_that_may_stay() -> None:
    answer = explain(SENT)
    assert titles(answer) == ["connection", "then", "stays", "route now", "receiving side now"]
    assert answer["allowed"]
    assert answer["sentence"] == (
        "connection 7 of demo/client is open; now it is allowed: by HBONE to demo/server at 10.0.0.2:15008, "
        "where no policy is against it"
    )
    record = answer["sections"][0]["steps"]
    assert record[0]["detail"] == "outbound of demo/client, from 10.0.0.1:4711 to 10.0.0.2:8080"
    assert record[1]["detail"] == "to 10.0.0.2:15008 for 10.0.0.2:8080 in tunnel 3"


def test_one_that_would_be_refused_now() -> None:
    answer = explain(SENT, mesh(CLIENT, SERVER, DENY))
    assert not answer["allowed"]
    assert answer["sentence"].endswith(
        "now it is refused: demo/server answers 401: explicitly denied by: demo/deny"
    )


def test_one_whose_end_left_the_mesh_may_not_stay() -> None:
    answer = explain(SENT, mesh(CLIENT))
    (stays,) = (section for section in answer["sections"] if section["title"] == "stays")
    assert stays["steps"][0]["outcome"] == "refused"
    assert stays["steps"][0]["detail"] == "demo/server left the mesh"


def test_a_failed_one_says_why_it_failed() -> None:
    failed = SENT._replace(state="failed", error="no healthy upstream", hbone_addr="")
    answer = explain(failed)
    assert answer["sentence"].startswith(
        "connection 7 of demo/client failed: no healthy upstream; now it is allowed"
    )
    assert "stays" not in titles(answer)
    assert explain(SENT._replace(state="closed"))["sentence"].startswith(
        "connection 7 of demo/client has ended;"
    )


def test_an_inbound_one_is_judged_by_the_identity_that_was_proven() -> None:
    answer = explain(CAME)
    assert (answer["source"], answer["allowed"]) == ("10.0.0.1:4711", True)
    assert answer["sentence"].endswith("now it is allowed: no policy is against it")
    assert not explain(CAME, mesh(CLIENT, SERVER, DENY))["allowed"]
    moved = explain(CAME._replace(hbone_addr="10.0.0.9:80"))
    assert moved["sentence"].endswith("refused: demo/server answers 400: ip mismatch: 10.0.0.2 != 10.0.0.9")


def test_an_inbound_one_in_the_clear_is_judged_by_its_address() -> None:
    plain = CAME._replace(hbone_addr="", identity=None, dst=TO)
    assert explain(plain)["allowed"]
    early = plain._replace(state="failed", error="attempted recursive call to ourselves", has_peers=False)
    assert explain(early)["sentence"].endswith("now it is refused: attempted recursive call to ourselves")


def test_a_pod_that_left_is_a_sentence() -> None:
    assert explain(SENT, mesh(SERVER))["sentence"] == (
        "connection 7 is open, and demo/client is not in the mesh any more"
    )


@pytest.mark.parametrize("seen", [SENT, CAME], ids=["outbound", "inbound"])
def test_an_identity_that_changed_counts_as_it_is_now(seen: Seen) -> None:
    other = replace(SERVER, trust_domain="example.org")
    assert SpiffeId("example.org", "demo", "server") == other.identity
    assert explain(seen, mesh(CLIENT, other))["allowed"]
