"""`zproxy bpf` against the installed bpftool where that prints its usage: other words, the same end."""

import pytest

from tests.support.bpftool import Outcome, assert_same, bpftool, ours

pytestmark = pytest.mark.root

MISUSES = ["map dump", "map dump id", "map dump id 1 2", "map lookup", "map getnext pinned", "map frob"]
MISUSES += ["prog frob", "link frob", "cgroup frob", "net frob", "net show x y z", "net show dev", "frob"]


@pytest.mark.parametrize("words", MISUSES)
def test_what_makes_bpftool_print_its_usage_ends_alike(words: str) -> None:
    mine, theirs = ours(*words.split()), bpftool(*words.split())
    assert (mine.stdout, mine.status) == (theirs.stdout, theirs.status) == (b"", 255)
    assert mine.stderr
    assert theirs.stderr.startswith("Usage: ")
    assert assert_same("-j", *words.split()) == Outcome(b"null\n", "", 255)
