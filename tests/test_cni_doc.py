"""docs/cni.md has every setting, command and failure of the plugin, and no others."""

import re
from pathlib import Path

from zproxy_cli.cni import KEYS
from zproxy_cli.cni import command as cni

from tests.support.documents import rows
from zproxy.cni.failure import Code
from zproxy.cni.plugin import COMMANDS
from zproxy.cni.request import VERSIONS

DOCUMENT = Path(__file__).parents[1] / "docs" / "cni.md"


def words(heading: str, column: int) -> list[str]:
    return [cells[column].strip("`") for cells in rows(DOCUMENT, heading)]


def test_every_setting_has_its_row_and_its_option() -> None:
    keys, options = words("## Settings", 0), words("## Settings", 1)
    assert keys == ["node", *KEYS.values()]
    assert options == ["--node", *(f"--{name.replace('_', '-')}" for name in KEYS)]
    there = {word for parameter in cni.commands["install"].params for word in parameter.opts}
    assert set(options) <= there


def test_every_command_has_its_row() -> None:
    assert sorted(words("## The protocol", 0)) == sorted([*COMMANDS, "VERSION"])


def test_every_code_has_its_row() -> None:
    assert list(map(int, words("## Failures", 0))) == sorted(Code)


def test_the_versions_are_named() -> None:
    section = DOCUMENT.read_text().partition("## The protocol")[2]
    assert re.findall(r"\d+\.\d+\.\d+", section)[: len(VERSIONS)] == list(VERSIONS)
