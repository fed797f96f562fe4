"""The tables of docs/limits.md say what zproxy.config says."""

import re
from pathlib import Path
from typing import Any

import pytest

from zproxy.config import Deadlines, Limits

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROW = re.compile(r"^\| `([a-z_]+)` \| ([0-9.]+) \|", re.MULTILINE)


def section(title: str) -> dict[str, float]:
    """Return the names and numbers of the table under a heading."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return {name: float(value) for name, value in ROW.findall(text)}


@pytest.mark.parametrize(("title", "defaults"), [("Deadlines", Deadlines()), ("Limits", Limits())])
def test_the_page_has_every_number_in_the_order_of_the_source(title: str, defaults: Any) -> None:
    assert list(section(title).items()) == [
        (name, float(value)) for name, value in defaults._asdict().items()
    ]


def test_every_bound_is_positive_and_only_idleness_may_be_unbounded() -> None:
    unbounded = [name for name, value in (Deadlines()._asdict() | Limits()._asdict()).items() if not value]
    assert unbounded == ["idle_s"]


def test_one_peer_never_holds_what_a_pod_has() -> None:
    limits = Limits()
    assert limits.pending_handshakes_per_peer < limits.pending_handshakes
    assert limits.tunnels_per_peer < limits.tunnels_per_pod
