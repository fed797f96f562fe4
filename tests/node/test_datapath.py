"""docs/datapath.md is walked through, and every command prints there what the document shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes import wait_for
from tests.support.walk import Walk, stable, steps, walking
from zproxy.lab import topology
from zproxy.lab.lifecycle import Lab
from zproxy.steering import decoded
from zproxy.steering.hooks import HOOKS
from zproxy.steering.layout import MAPS

DOCUMENT = Path(__file__).parents[2] / "docs" / "datapath.md"

SAMPLES = [
    ("117: lru_hash  name zp_conn", "9: lru_hash  name zp_conn", True),
    ('"orig_ip": [0,0,10,244,2,5\n    ]', '"orig_ip": [0,0,10,244,2,5\n        ]', True),
    ('"orig_ip": [0,0,10,244,2,5]', '"orig_ip": [0,0,10,244,2,6]', False),
    ('"orig_port": 8080', '"orig_port": 8081', False),
    ("10.244.1.5:43210  10.244.1.5:15001", "10.244.1.5:51234 10.244.1.5:15001", True),
    ("10.244.1.5:43210  10.244.1.5:15001", "10.244.1.5:43210 10.244.1.5:15006", False),
    ("tag f03f3c893109830e  gpl", "tag 4cc6a57ef85ff6e6  gpl", True),
    ("value: 9b 78 67 00\nFound 1", "value: 01 02 0a 00\nFound 1", True),
    ("demo/client   0s", "demo/client   12s", True),
    ("demo/client   0s", "demo/server   0s", False),
]


@pytest.fixture
def walk() -> Iterator[Walk]:
    assert not topology.present(Lab().layout), "a lab is up already: take it down with `zproxy lab down`"
    with walking() as walk:
        yield walk
        walk.run("zproxy lab down")


@pytest.mark.parametrize(("one", "other", "is_same"), SAMPLES)
def test_what_varies_is_not_compared_and_what_tells_something_is(one: str, other: str, is_same: bool) -> None:
    assert (stable(one) == stable(other)) is is_same


@pytest.mark.root
def test_the_walk_through_is_what_a_reader_sees(walk: Walk) -> None:
    walked = steps(DOCUMENT.read_text())
    assert sum(1 for step in walked if step.shown) > 8
    for step in walked:
        if step.is_background:
            walk.start(step.command)
            wait_for(_is_connected, "the app's connection is there")
        else:
            printed = walk.run(step.command)
            if step.shown:
                assert stable(printed) == stable(step.shown), f"{step.command}{printed}"


def _is_connected() -> bool:
    with decoded.opened("node-a") as maps:
        return bool(decoded.conns(maps)) and not decoded.tuples(maps)


def test_every_program_and_every_map_is_explained() -> None:
    text = DOCUMENT.read_text()
    assert [name for name in (*HOOKS, *MAPS) if f"`{name}`" not in text] == []
