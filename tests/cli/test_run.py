"""`zproxy run`: what the daemon is started with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from zproxy import app
from zproxy.config import STATE_ROOT

Zp = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[app.Options]:
    """What daemons would have been started."""
    options: list[app.Options] = []
    monkeypatch.setattr(app, "run", options.append)
    return options


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--node", "node-a", "--config", "mesh.yaml"),
        ("--node", "node-a", "run", "--config", "mesh.yaml"),
        ("--node", "node-b", "run", "--node", "node-a", "--config", "mesh.yaml"),
    ],
)
def test_the_node_may_be_named_before_or_behind(
    zp: Zp, started: list[app.Options], words: tuple[str, ...]
) -> None:
    assert zp(*words).exit_code == 0
    assert started == [app.Options("node-a", Path("mesh.yaml"), STATE_ROOT / "ca", verbose=False)]


def test_options_reach_the_daemon(zp: Zp, started: list[app.Options]) -> None:
    more = ("--ca-dir", "/tmp/ca", "--idle-timeout", "90", "--busy-poll", "100")
    zp("-v", "run", "--node", "a", "--config", "m.yaml", *more)
    expected = app.Options("a", Path("m.yaml"), Path("/tmp/ca"), verbose=True, idle_s=90, busy_poll_us=100)
    assert started == [expected]


def test_without_a_node_the_sentence_says_what_is_missing(zp: Zp, started: list[app.Options]) -> None:
    result = zp("run", "--config", "mesh.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: which node is this? give --node NAME")
    assert not started


def test_without_a_mesh_it_is_wrong_usage(zp: Zp, started: list[app.Options]) -> None:
    assert zp("run", "--node", "a").exit_code == 2
    assert not started


def test_the_number_of_workers_reaches_the_daemon(zp: Zp, started: list[app.Options]) -> None:
    zp("run", "--node", "a", "--config", "m.yaml", "--workers", "2")
    assert started[0].workers == 2


@pytest.mark.parametrize("count", ["0", "-1", "65", "two", ""])
def test_a_number_of_workers_that_cannot_be_is_wrong_usage(
    zp: Zp, started: list[app.Options], count: str
) -> None:
    result = zp("run", "--node", "a", "--config", "m.yaml", "--workers", count)
    assert result.exit_code == 2
    assert "Invalid value for '--workers'" in result.stderr
    assert not started


def test_what_pods_may_dial_is_anything_unless_said(zp: Zp, started: list[app.Options]) -> None:
    zp("run", "--node", "a", "--config", "m.yaml")
    zp("run", "--node", "a", "--config", "m.yaml", "--outbound-policy", "registry_only")
    assert [options.settings.outbound_policy.value for options in started] == ["allow_any", "registry_only"]
    assert zp("run", "--node", "a", "--config", "m.yaml", "--outbound-policy", "deny").exit_code == 2
