"""Records by shared keys: preference, and change without harm to the former index."""

from zproxy.state.index import Index

WORDS: Index[str, str] = Index(lambda word: sorted(set(word)), lambda word: (len(word), word))


def test_what_shares_a_key_stands_in_order_of_rank() -> None:
    index = WORDS.changed((), ("bad", "ab", "cab"))
    assert index["a"] == ("ab", "bad", "cab")
    assert index.first("c") == "cab"
    assert (index["x"], index.first("x")) == ((), None)
    assert set(index.keys()) == set("abcd")


def test_a_change_leaves_the_former_index_alone() -> None:
    before = WORDS.changed((), ("ab", "bc"))
    after = before.changed(("ab",), ("cd",))
    assert before["a"] == ("ab",)
    assert after["a"] == ()
    assert after["c"] == ("bc", "cd")
    assert "a" not in set(after.keys())


def test_nothing_changed_is_the_same_index() -> None:
    assert WORDS.changed((), ()) is WORDS
