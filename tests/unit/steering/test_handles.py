"""Finding objects: bare names among the pins of nodes, and the order in which bpftool lists pins."""

from pathlib import Path

import pytest

from zproxy.errors import SteeringError
from zproxy.steering.handles import MAP, is_bare, pinned_nodes, pins_named
from zproxy.steering.handles_pins import Pins
from zproxy.steering.maps import select


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


@pytest.mark.parametrize(
    ("name", "node", "where"),
    [
        ("zp_none", None, "NODE/maps"),
        ("zp_stats", "b", "b/maps"),
        ("zp_pods", "nowhere", "nowhere/maps"),
        ("zp_pods", "host.example", "host%2Eexample/maps"),
        ("../../a/maps/zp_pods", "b", "b/maps"),
        ("..", "a", "a/maps"),
    ],
)
def test_a_bare_name_that_is_not_there_says_where_it_was_sought(
    root: Path, name: str, node: str | None, where: str
) -> None:
    with (
        pytest.raises(SteeringError, match=f"no map {name} is pinned in {root}/{where}"),
        select([name], node, root),
    ):
        pass


def test_pins_of_one_map_are_listed_latest_first_until_the_table_grows() -> None:
    pins = Pins()
    assert not pins
    for path in "abc":
        pins.add(7, path)
    assert pins.of(7) == ["c", "b", "a"]
    pins.add(7, "d")
    assert pins.of(7) == ["d", "a", "b", "c"]
    assert (pins.of(8), bool(pins)) == ([], True)
