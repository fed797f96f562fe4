"""The state machine of a ZDS connection: ztunnel's table, and any order of events."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.zds.roster import ProtocolBroken, Roster


def connected() -> Roster[str]:
    made = Roster[str]()
    made.connect()
    return made


def after_snapshot() -> Roster[str]:
    made = connected()
    assert made.snapshot(()) == []
    return made


@pytest.mark.parametrize(
    ("before", "running", "left"),
    [
        (lambda r: None, ["a", "b"], ["a", "b"]),
        (lambda r: r.add("a"), ["a", "b"], ["b"]),
        (lambda r: r.keep("a"), ["a", "b"], ["b"]),
        (lambda r: (r.add("a"), r.delete("a")), ["a"], ["a"]),
        (lambda r: (r.keep("a"), r.delete("a")), ["a"], ["a"]),
        (lambda r: (r.add("a"), r.delete("a"), r.add("a")), ["a"], []),
        (lambda r: (r.add("a"), r.failed("a", "fd", "port")), ["a"], []),
        (lambda r: r.delete("never"), ["a"], ["a"]),
    ],
    ids=["nobody", "added", "kept", "deleted", "kept-deleted", "add-del-add", "failed", "del-unknown"],
)
def test_a_snapshot_drops_those_that_it_does_not_name(
    before: Callable[[Roster[str]], object], running: list[str], left: list[str]
) -> None:
    roster = connected()
    before(roster)
    assert roster.snapshot(running) == left


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda r: r.snapshot(()), "a second end of the snapshot"),
        (lambda r: r.keep("a"), "after the snapshot"),
    ],
)
def test_what_makes_no_sense_after_the_snapshot(break_it: Callable[[Roster[str]], object], says: str) -> None:
    with pytest.raises(ProtocolBroken, match=says):
        break_it(after_snapshot())


def test_ready_is_connected_with_a_snapshot_and_nobody_pending() -> None:
    roster, steps = Roster[str](), list[bool]()
    steps.append(roster.is_ready)
    roster.connect()
    steps.append(roster.is_ready)
    roster.failed("a", "fd", "port")
    roster.snapshot(())
    steps.append(roster.is_ready)
    assert roster.taken("a") == "fd"
    steps.append(roster.is_ready)
    roster.disconnect()
    steps.append(roster.is_ready)
    assert steps == [False, False, False, True, False]


def test_what_is_pending_is_given_back_whoever_takes_its_place() -> None:
    roster = after_snapshot()
    assert roster.failed("a", "one", "port") is None
    assert roster.failed("a", "one", "port again") is None
    assert roster.failed("a", "two", "port again") == "one"
    assert roster.delete("a") == "two"
    assert roster.delete("a") is None
    assert roster.reasons == {}


def test_a_new_connection_has_nobody_pending_and_takes_a_new_snapshot() -> None:
    roster = after_snapshot()
    roster.add("a")
    roster.failed("a", "fd", "port")
    assert roster.disconnect() == ["fd"]
    roster.connect()
    roster.keep("b")
    assert roster.snapshot(["a", "b"]) == ["a"]


def test_names_of_a_broken_snapshot_do_not_count_in_the_next() -> None:
    roster = connected()
    roster.add("a")
    roster.disconnect()
    roster.connect()
    assert roster.snapshot(["a"]) == ["a"]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "keep", "fail", "taken", "delete", "snapshot", "reconnect"]),
        st.sampled_from("abc"),
    ),
    max_size=40,
)


@given(EVENTS)
def test_nothing_that_is_held_is_lost_or_given_back_twice(events: list[tuple[str, str]]) -> None:
    roster, given_out, back = connected(), 0, []
    for event, uid in events:
        try:
            if event == "fail":
                given_out += 1
                back.append(roster.failed(uid, str(given_out), "reason"))
            elif event == "reconnect":
                back += roster.disconnect()
                roster.connect()
            elif event == "snapshot":
                roster.snapshot("abc")
            else:
                back.append(getattr(roster, event)(uid))
        except ProtocolBroken:
            assert roster.has_snapshot
        assert roster.reasons.keys() == roster.pending.keys()
    back += roster.disconnect()
    returned = [each for each in back if each is not None]
    assert sorted(returned, key=int) == [str(number) for number in range(1, given_out + 1)]
