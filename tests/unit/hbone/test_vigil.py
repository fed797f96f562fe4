"""What the clock says of a peer."""

import pytest

from zproxy.hbone.vigil import DEAD_AFTER_S, PING_AFTER_S, Finding, Vigil

FRAME_S = 30.0


def look(vigil: Vigil, now: float, *, unfinished: int = 0, is_owed: bool = True) -> Finding:
    return vigil.look(now, unfinished=unfinished, frame_s=FRAME_S, is_owed=is_owed)


def test_a_silent_peer_is_pinged_once_and_then_dead() -> None:
    vigil = Vigil(100.0)
    findings = [look(vigil, 100.0 + second) for second in range(1, 32)]
    assert findings.index(Finding.PING) + 1 == PING_AFTER_S + 1
    assert findings.count(Finding.PING) == 1
    assert findings.index(Finding.DEAD) + 1 == DEAD_AFTER_S + 1


def test_a_peer_that_answers_is_pinged_again_at_the_next_silence() -> None:
    vigil = Vigil(0.0)
    assert look(vigil, 10.5) is Finding.PING
    vigil.heard = 10.6
    assert look(vigil, 20.0) is Finding.FINE
    assert look(vigil, 21.0) is Finding.PING


def test_without_streams_silence_is_no_fault_and_a_new_stream_gets_its_time() -> None:
    vigil = Vigil(0.0)
    assert look(vigil, 1000.0, is_owed=False) is Finding.FINE
    assert look(vigil, 1001.0) is Finding.PING
    assert look(vigil, 1019.0) is Finding.FINE
    assert look(vigil, 1021.0) is Finding.DEAD


@pytest.mark.parametrize("is_owed", [True, False])
def test_a_frame_that_does_not_end_is_found_and_one_that_goes_on_is_not(is_owed: bool) -> None:
    vigil = Vigil(0.0)
    for second in range(1, 100):
        vigil.heard = float(second)
        assert look(vigil, float(second), unfinished=second, is_owed=is_owed) is Finding.FINE
    for second in range(100, 131):
        vigil.heard = float(second)
        found = look(vigil, float(second), unfinished=7, is_owed=is_owed)
    assert found is Finding.FINE
    assert look(vigil, 130.5, unfinished=7, is_owed=is_owed) is Finding.STALLED
