"""`zproxy cleanup`: which nodes are meant, what is said, and how it ends."""

from collections.abc import Callable

import pytest
from click.testing import Result

from zproxy.errors import ConfigError
from zproxy.node import cleanup, present
from zproxy.node.cleanup import Done
from zproxy.node.present import Site


class Machine:
    """Nodes that would be cleaned; keeps which were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *nodes: str) -> None:
        self.cleaned: list[tuple[str, bool]] = []
        self.result = "gone"
        self.living: ConfigError | None = None
        monkeypatch.setattr(present, "nodes", lambda: list(nodes))
        monkeypatch.setattr(cleanup, "cleanup", self._clean)
        monkeypatch.setattr(cleanup, "refuse_living", self._refuse)

    def _clean(self, site: Site, *, dry_run: bool) -> list[Done]:
        self.cleaned.append((site.node, dry_run))
        return [Done(site.node, "pins", "34 objects", self.result)]

    def _refuse(self, sites: list[Site]) -> None:
        if self.living is not None:
            raise self.living


def test_the_only_node_is_meant(monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]) -> None:
    machine = Machine(monkeypatch, "node-a")
    result = zp("cleanup")
    assert result.stdout.splitlines()[1].split() == ["node-a", "pins", "34", "objects", "gone"]
    assert (result.exit_code, machine.cleaned) == (0, [("node-a", False)])


def test_of_several_one_is_chosen_or_all_are(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]
) -> None:
    machine = Machine(monkeypatch, "a", "b")
    result = zp("cleanup")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: several nodes are here: choose a or b with --node, or --all\n",
    )
    assert machine.cleaned == []
    zp("cleanup", "--node", "b", "--dry-run")
    zp("cleanup", "--all")
    assert machine.cleaned == [("b", True), ("a", False), ("b", False)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--all", "--node", "a"), "give --node or --all, not both"),
        (("--node", "c"), "nothing of a node c is on this machine; there is a, b"),
    ],
)
def test_a_choice_that_cannot_be_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result], words: tuple[str, ...], sentence: str
) -> None:
    machine = Machine(monkeypatch, "a", "b")
    result = zp("cleanup", *words)
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")
    assert machine.cleaned == []


def test_one_living_daemon_keeps_all(monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]) -> None:
    machine = Machine(monkeypatch, "a", "b")
    machine.living = ConfigError("the daemon of node b is alive (pid 7); stop it first: kill 7")
    result = zp("cleanup", "--all")
    assert (result.exit_code, "kill 7" in result.stderr, machine.cleaned) == (1, True, [])


def test_a_step_that_failed_is_shown_and_fails(
    monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]
) -> None:
    machine = Machine(monkeypatch, "a")
    machine.result = "failed: Directory not empty"
    result = zp("cleanup")
    assert (result.exit_code, "Directory not empty" in result.stdout) == (1, True)


def test_nothing_to_clean_is_fine(monkeypatch: pytest.MonkeyPatch, zp: Callable[..., Result]) -> None:
    Machine(monkeypatch)
    result = zp("cleanup", "--all")
    assert (result.exit_code, result.stderr) == (0, "Nothing of zproxy is on this machine.\n")
