"""What a document claims is found, and a false claim about a command is noticed."""

import click
import pytest

from tests.support import documents

TEXT = """
Run `make demo`, then `zproxy lab exec POD -- CMD`; see `tests/unit/` and [this](docs/a.md#part), not [that](https://b).

```sh run-root
.venv/bin/zproxy --node a pods -o json    # all of them
make test ARGS="-k x"
```

```text
zproxy nonsense is output here
```
"""


def test_blocks_carry_language_and_mark() -> None:
    assert [(block.language, block.mark) for block in documents.blocks(TEXT)] == [
        ("sh", "run-root"),
        ("text", ""),
    ]


def test_targets_come_from_spans_and_shell_blocks() -> None:
    assert sorted(documents.targets(TEXT)) == ["demo", "test"]


def test_commands_come_without_their_comment_and_not_from_output() -> None:
    assert sorted(documents.commands(TEXT)) == [
        ["--node", "a", "pods", "-o", "json"],
        ["lab", "exec", "POD", "--", "CMD"],
    ]


def test_paths_and_links_into_the_project_are_found() -> None:
    assert list(documents.paths(TEXT, ("tests", "docs"))) == ["tests/unit/"]
    assert list(documents.links(TEXT)) == ["docs/a.md"]


@click.group
@click.option("--node")
@click.option("-v", "--verbose", count=True)
@click.option("-q", "--quiet", is_flag=True)
def tool(node: str, verbose: int, quiet: bool) -> None:
    """Stand for the command line."""


@tool.group
def lab() -> None:
    """Have a command below."""


@lab.command(name="exec")
@click.argument("pod")
@click.argument("command", nargs=-1)
def exec_(pod: str, command: tuple[str, ...]) -> None:
    """Take what follows."""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("--node a lab exec POD -- ls --all", ""),
        ("-v -q --node=a lab exe", "lab has no command exe"),
        ("-v --node=a lab", ""),
        ("lab --help", ""),
        ("lap exec", "tool has no command lap"),
        ("--node a lab exe", "lab has no command exe"),
        ("lab exec POD --force", "exec has no option --force"),
        ("--nodes a lab", "tool has no option --nodes"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, fault: str) -> None:
    assert documents.fault_of_command(line.split(), tool) == fault
