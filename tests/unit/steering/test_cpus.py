"""CPUs that there could be."""

from pathlib import Path

import pytest

from zproxy.steering.cpus import possible_cpus


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-3\n", 4), ("0-1,4,6-7\n", 5), ("0-3,6,8-9\n", 7)]
)
def test_possible_cpus_are_counted_from_ranges(tmp_path: Path, text: str, count: int) -> None:
    path = tmp_path / "possible"
    path.write_text(text)
    assert possible_cpus(path) == count
