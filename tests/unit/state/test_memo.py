"""What is remembered: for how long, how much of it, and that who asks for much costs others nothing."""

from zproxy.state.memo import Memo


def test_what_was_kept_is_known_and_nothing_else() -> None:
    memo = Memo(2)
    assert memo["a"] is None
    memo.keep("a", 1)
    assert memo["a"] == 1


def test_what_is_asked_for_survives_any_number_of_others() -> None:
    memo = Memo(4)
    memo.keep("mine", 0)
    memo.keep("nobody's", 0)
    for number in range(100):
        memo.keep(number, number + 1)
        if number % 4 == 3:
            assert memo["mine"] == 0
    assert memo["nobody's"] is None


def test_no_more_than_two_generations_are_kept() -> None:
    memo = Memo(4)
    for number in range(100):
        memo.keep(number, number + 1)
        assert len(memo) <= 4
        assert len(memo.older) <= 4
    assert memo[99] == 100
    assert memo[0] is None


def test_an_answer_that_is_empty_is_an_answer() -> None:
    memo = Memo(1)
    memo.keep("none found", ())
    memo.keep("another", 1)
    assert memo["none found"] == ()
