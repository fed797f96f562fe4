"""`zproxy status`: rows, and an exit status that a script can use."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from zproxy.node import present, status

GOOD = {"node": "a", "pod": "demo/x", "check": "pod", "status": "ok", "detail": "17 checks", "remedy": ""}
BAD = GOOD | {"check": "rule IPv4", "status": "missing", "detail": "gone", "remedy": "wait"}


def fake(
    monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any], nodes: tuple[str, ...] = ("a",)
) -> list[Any]:
    asked: list[Any] = []

    def look(names: list[str], pod: str | None) -> list[dict[str, Any]]:
        asked.append((names, pod))
        return list(rows)

    monkeypatch.setattr(present, "nodes", lambda: list(nodes))
    monkeypatch.setattr(status, "look", look)
    return asked


def test_all_nodes_and_their_pods(monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]) -> None:
    asked = fake(monkeypatch, GOOD)
    result = zp("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NODE   POD      CHECK   STATUS   DETAIL      REMEDY",
        "a      demo/x   pod     ok       17 checks   -",
    ]
    assert asked == [(["a"], None)]


def test_one_pod_has_a_row_for_each_check_and_missing_is_1(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]
) -> None:
    asked = fake(monkeypatch, BAD)
    result = zp("--node", "b", "status", "demo/x")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split() == ["rule", "IPv4", "missing", "gone", "wait"]
    assert asked == [(["b"], "demo/x")]
    assert json.loads(zp("status", "-o", "json").stdout) == [BAD]


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("note", 0), ("missing", 1), ("drifted", 1)])
def test_what_the_exit_status_says(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result], verdict: str, code: int
) -> None:
    fake(monkeypatch, GOOD, GOOD | {"status": verdict})
    assert zp("status").exit_code == code


def test_a_machine_without_a_node_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]
) -> None:
    fake(monkeypatch, nodes=())
    result = zp("status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`zproxy run` makes one" in result.stderr
