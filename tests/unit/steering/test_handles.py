"""Finding objects: bare names among the pins of nodes, and the order in which bpftool lists pins."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zproxy.errors import SteeringError
from zproxy.steering import handles
from zproxy.steering.grammar import DumpError
from zproxy.steering.handles import (
    LINK,
    MAP,
    PROG,
    Noun,
    check_shown,
    every_fd,
    is_bare,
    pinned_nodes,
    pins_named,
)
from zproxy.steering.handles_pins import Pins
from zproxy.steering.syscall import Kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two nodes; ordinary files stand for pins."""
    for pin in ("a/maps/zp_pods", "a/maps/zp_stats", "b/maps/zp_pods"):
        path = tmp_path / pin
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "host%2Eexample" / "maps").mkdir(parents=True)
    (tmp_path / "c" / "progs").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("word", ["zp_pods", "idx", "names", "pinned2", "x"])
def test_a_word_that_begins_no_keyword_is_a_bare_name(word: str) -> None:
    assert is_bare(word, MAP)


@pytest.mark.parametrize("word", ["id", "i", "name", "n", "pinned", "pin", ""])
def test_a_word_that_begins_a_keyword_is_one(word: str) -> None:
    assert not is_bare(word, MAP)


def test_a_bare_name_is_found_at_every_node_or_at_one(root: Path) -> None:
    assert pinned_nodes(root) == ["a", "b", "host.example"]
    assert pins_named(MAP, "zp_pods", None, root) == [root / "a/maps/zp_pods", root / "b/maps/zp_pods"]
    assert pins_named(MAP, "zp_pods", "b", root) == [root / "b/maps/zp_pods"]
    assert pins_named(MAP, "zp_stats", None, root) == [root / "a/maps/zp_stats"]


def test_a_link_is_found_for_a_node_and_for_each_pod(root: Path) -> None:
    for pin in ("a/links/connect4", "a/pods/7/sk_lookup", "a/pods/9/sk_lookup", "a/progs/zp_lookup"):
        path = root / pin
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pods = root / "a/pods"
    assert pins_named(LINK, "connect4", None, root) == [root / "a/links/connect4"]
    assert pins_named(LINK, "sk_lookup", "a", root) == [pods / "7/sk_lookup", pods / "9/sk_lookup"]
    assert pins_named(PROG, "zp_lookup", None, root) == [root / "a/progs/zp_lookup"]


@pytest.mark.parametrize(
    ("noun", "sentence"),
    [
        (MAP, "no map x is pinned in ROOT/NODE/maps; `zproxy bpf map list -f` shows what is pinned"),
        (PROG, "no program x is pinned in ROOT/NODE/progs; `zproxy bpf prog list -f` shows what is pinned"),
        (LINK, "no link x is pinned in ROOT/NODE/links; `zproxy bpf link list -f` shows what is pinned"),
    ],
    ids=lambda value: getattr(value, "word", ""),
)
def test_a_bare_name_that_is_not_there_says_where_it_was_sought(
    root: Path, noun: Noun, sentence: str
) -> None:
    with pytest.raises(SteeringError) as failure:
        pins_named(noun, "x", None, root)
    assert str(failure.value) == sentence.replace("ROOT", str(root))


@pytest.mark.parametrize("words", [[], ["id", "1"], ["n", "x"], ["zp_pods"], ["pinned", ""]])
def test_show_takes_nothing_an_object_or_a_bare_name(words: list[str]) -> None:
    check_shown(words, MAP)


@pytest.mark.parametrize(
    ("noun", "words", "sentence"),
    [
        (MAP, ["id"], "what is 'id'?"),
        (MAP, ["x", "y", "z"], "what is 'x'?"),
        (MAP, ["x", "y"], "expected 'id', 'name' or 'pinned', got: 'x'?"),
        (PROG, ["x", "y"], "expected 'id', 'tag', 'name' or 'pinned', got: 'x'?"),
        (LINK, ["name", "y"], "expected 'id' or 'pinned', got: 'name'?"),
    ],
)
def test_what_show_does_not_take_is_bpftools_sentence(noun: Noun, words: list[str], sentence: str) -> None:
    with pytest.raises(DumpError) as failure:
        check_shown(words, noun)
    assert (str(failure.value), failure.value.status) == (sentence, 255)


@pytest.mark.parametrize(
    ("code", "hidden", "sentence"),
    [
        (errno.EINVAL, False, "can't get next program: Invalid argument -- kernel too old?"),
        (errno.EPERM, False, "can't get next program: Operation not permitted"),
        (errno.EINVAL, True, "Invalid argument"),
    ],
)
def test_a_walk_that_the_kernel_refuses_is_bpftools_sentence(
    monkeypatch: pytest.MonkeyPatch, code: int, hidden: bool, sentence: str
) -> None:
    def refuse(_kind: Kind) -> Iterator[int]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(handles, "ids", refuse)
    with pytest.raises(DumpError, match=f"^{re.escape(sentence)}$"):
        list(every_fd(PROG, hidden=hidden))


def test_an_object_that_goes_during_a_walk_is_passed_over_but_not_in_a_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(_kind: Kind, number: int) -> int:
        if number == 2:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return 10 + number

    monkeypatch.setattr(handles, "ids", lambda _kind: iter((1, 2, 3)))
    monkeypatch.setattr(handles, "fd_by_id", gone)
    assert list(every_fd(LINK)) == [(1, 11), (3, 13)]
    with pytest.raises(DumpError, match=r"^can't get link by id \(2\): No such file or directory$"):
        list(every_fd(LINK, hidden=True))


def test_pins_of_one_map_are_listed_latest_first_until_the_table_grows() -> None:
    pins = Pins()
    assert not pins
    for path in "abc":
        pins.add(7, path)
    assert pins.of(7) == ["c", "b", "a"]
    pins.add(7, "d")
    assert pins.of(7) == ["d", "a", "b", "c"]
    assert (pins.of(8), bool(pins)) == ([], True)
