"""Finding maps: the bare name of one of zproxy's own says where it was sought."""

from pathlib import Path

import pytest

from zproxy.errors import SteeringError
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
