"""The printer: kubectl's tables, and JSON and YAML from the same rows."""

import json
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from zproxy_cli.output import (
    Column,
    cell,
    fail,
    flush,
    note,
    output_option,
    print_rows,
    say,
    table,
    write,
)

ROWS: list[dict[str, Any]] = [
    {"pod": "demo/client", "ips": ["10.244.1.5", "fd00::5"], "state": "ready", "netns": {"inode": 7}},
    {"pod": "demo/a-much-longer-name", "ips": [], "state": None},
]
COLUMNS = [
    Column("POD", "pod"),
    Column("ADDRESS", "ips"),
    Column("STATE", "state"),
    Column("NETNS", "netns", True),
]


def printed(*words: str) -> str:
    """Return what a command with -o prints of ROWS."""

    @click.command()
    @output_option
    def command(output: str) -> None:
        print_rows(ROWS, COLUMNS, output)

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_columns_are_as_wide_as_their_widest_cell_and_three_spaces_apart() -> None:
    assert printed().splitlines() == [
        "POD                       ADDRESS              STATE",
        "demo/client               10.244.1.5,fd00::5   ready",
        "demo/a-much-longer-name   -                    -",
    ]


def test_a_column_has_its_own_word_for_nothing() -> None:
    columns = [Column("POD", "pod"), Column("WAYPOINT", "waypoint", nothing="None")]
    assert table([{"pod": "a", "waypoint": ""}, {"pod": "", "waypoint": "w"}], columns).splitlines()[1:] == [
        "a     None",
        "-     w",
    ]


def test_wide_adds_the_wide_columns() -> None:
    first, second, _ = printed("-o", "wide").splitlines()
    assert first.endswith("STATE   NETNS")
    assert second.endswith("ready   inode=7")


def test_json_and_yaml_hold_the_rows_as_they_are() -> None:
    assert json.loads(printed("-o", "json")) == ROWS
    assert yaml.safe_load(printed("--output", "yaml")) == ROWS
    assert printed("-o", "yaml").index("pod:") < printed("-o", "yaml").index("ips:")


def test_another_format_is_wrong_usage() -> None:
    with pytest.raises(AssertionError, match="'xml' is not one of"):
        printed("-o", "xml")


def test_an_empty_table_is_a_sentence_on_stderr_and_an_empty_list_in_json() -> None:
    @click.command()
    @output_option
    def command(output: str) -> None:
        print_rows([], COLUMNS, output, nothing="no pod is enrolled")

    result = CliRunner().invoke(command, [])
    assert (result.stdout, result.stderr) == ("", "no pod is enrolled\n")
    result = CliRunner().invoke(command, ["-o", "json"])
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_a_table_without_rows_has_its_header() -> None:
    assert table([], COLUMNS) == "POD   ADDRESS   STATE\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (0, "0"),
        (True, "yes"),
        (False, "no"),
        (1.26, "1.3"),
        (["a", None], "a,-"),
        ({"a": 1, "b": "c"}, "a=1,b=c"),
        ("text", "text"),
    ],
)
def test_every_value_has_a_text(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_failure_is_one_sentence_on_stderr_and_its_status() -> None:
    @click.command()
    def command() -> None:
        say("before")
        note("a word")
        fail("it broke", 3)

    result = CliRunner().invoke(command)
    assert (result.stdout, result.stderr, result.exit_code) == ("before\n", "a word\nError: it broke\n", 3)


def test_bytes_that_are_no_text_come_out_as_they_went_in() -> None:
    @click.command()
    def command() -> None:
        write(b"caf\xc3\xa9 \xff\n".decode("utf-8", "surrogateescape"))
        flush()

    assert CliRunner().invoke(command).stdout_bytes == b"caf\xc3\xa9 \xff\n"
