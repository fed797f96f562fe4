"""Open connections decided again: what is looked at, and what each objection is asked once."""

from collections.abc import Iterator

import pytest

from tests.support.plane import Plane
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
