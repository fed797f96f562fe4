"""`zproxy lab`: which words do what. What the lab is worth, tests/node/test_lab.py tells."""

from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from zproxy_cli.main import zproxy

from zproxy.errors import ConfigError
from zproxy.lab import inside, lifecycle, policy
from zproxy.lab import prove as lab_prove
from zproxy.lab.proof import Proof


def run(*words: str) -> Result:
    return CliRunner().invoke(zproxy, ["lab", *words], prog_name="zproxy")


@pytest.mark.parametrize(
    ("verb", "module", "name"),
    [("up", lifecycle, "up"), ("down", lifecycle, "down"), ("policy", policy, "show")],
)
def test_what_is_done_is_said_line_by_line(
    monkeypatch: pytest.MonkeyPatch, verb: str, module: ModuleType, name: str
) -> None:
    def act(say: Callable[[str], None]) -> None:
        say("one thing")
        say("another")

    monkeypatch.setattr(module, name, act)
    assert run(verb).stdout == "one thing\nanother\n"


def test_prove_is_between_the_labs_pods_and_both_app_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def prove(*arguments: Any) -> list[Proof]:
        asked.append(arguments)
        return []

    monkeypatch.setattr(lab_prove, "prove", prove)
    assert run("prove").exit_code == 0
    assert asked == [("demo/client", "demo/server", (8080, 8081))]


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (
            ("demo/client", "--", "curl", "-s", "--max-time", "5", "http://x"),
            ("curl", "-s", "--max-time", "5", "http://x"),
        ),
        (("demo/client", "ls", "-l", "--", "x"), ("ls", "-l", "--", "x")),
        (("demo/client", "--", "--", "x"), ("--", "x")),
    ],
)
def test_exec_passes_the_command_on_as_it_is(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(lifecycle, "open_pod", nullcontext)
    monkeypatch.setattr(inside, "become", lambda netns, command: became.append(command))
    assert run("exec", *words).exit_code == 0
    assert became == [argv]


@pytest.mark.parametrize("words", [(), ("demo/client",), ("demo/client", "--")])
def test_exec_without_a_command_is_wrong_usage(words: tuple[str, ...]) -> None:
    assert run("exec", *words).exit_code == 2


def test_exec_in_a_pod_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_pod(pod: str) -> None:
        raise ConfigError(f"the lab has no pod {pod!r}")

    monkeypatch.setattr(lifecycle, "open_pod", open_pod)
    result = run("exec", "demo/x", "--", "true")
    assert (result.exit_code, result.stderr) == (1, "Error: the lab has no pod 'demo/x'\n")
