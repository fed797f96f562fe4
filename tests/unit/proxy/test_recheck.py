"""Open connections decided again: what is looked at, and what each objection is asked once."""

from collections.abc import Iterator

import pytest

from tests.support.plane import Plane
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.route import Passthrough
from zproxy.observe.connections import Connection
from zproxy.proxy.recheck import Recheck


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


def test_connections_to_one_place_are_asked_about_once(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def ask(*facts: object) -> str:
        asked.append(facts)
        return ""

    monkeypatch.setattr("zproxy.proxy.recheck.objection", ask)
    app = plane.serve()
    pairs = []
    for _ in range(3):
        near = plane.dial()
        pairs.append((near, plane.accept(app)))
    recheck = Recheck(plane.client)
    assert not recheck.advance()
    assert (len(asked), recheck.closed) == (1, 0)


def test_what_is_objected_to_ends_with_the_reason(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zproxy.proxy.recheck.objection", lambda *_: "it moved")
    near, _ = plane.pair()
    recheck = Recheck(plane.client)
    assert not recheck.advance()
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    assert recheck.closed == 1
    errors = {each.error for each in plane.ended(1)}
    assert "connection closed due to policy change: it moved" in errors


class Handed:
    """A relay that hands its connection to another one when it is told to."""

    def __init__(self, plane: Plane, connection: Connection) -> None:
        self.connection = connection
        self._relays = plane.client.relays
        self._relays.add(self)
        self.given_up = ""

    def hand_over(self, plane: Plane) -> "Handed":
        self._relays.discard(self)
        return Handed(plane, self.connection)

    def give_up(self, error: str, reason: str) -> None:
        self.given_up = error
        self._relays.discard(self)


def waiting(plane: Plane) -> Handed:
    at = Endpoint("10.0.0.1", 80)
    connection = plane.connections.open("demo/client", Direction.OUTBOUND, at, at, 0)
    connection.route = Passthrough(at)
    return Handed(plane, connection)


def test_a_connection_that_another_relay_has_taken_over_meanwhile_is_looked_at_there(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zproxy.proxy.recheck.objection", lambda *_: "it moved")
    monkeypatch.setattr("zproxy.proxy.recheck.SLICE_S", 0)
    first, second = waiting(plane), waiting(plane)
    recheck = Recheck(plane.client)
    assert recheck.advance()
    (left,) = (each for each in (first, second) if not each.given_up)
    taken_over = left.hand_over(plane)
    later = waiting(plane)
    assert recheck.advance()
    assert not recheck.advance()
    assert taken_over.given_up.endswith("it moved")
    assert (left.given_up, later.given_up) == ("", ""), "who begins later is decided by the new mesh"
    plane.client.relays.discard(later)
