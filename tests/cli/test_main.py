"""The group: nouns are loaded when they are called, failures are sentences, and help is fast."""

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from zproxy_cli import main, session

from zproxy import __version__
from zproxy.errors import ZproxyError

HEAVY = ("bcc", "asyncio", "cryptography", "yaml", "zproxy.node", "zproxy.steering", "uvloop", "pyroute2")
HELP_S = 0.3


def test_every_noun_of_the_table_is_a_command_of_that_name() -> None:
    context = click.Context(main.zproxy)
    assert isinstance(main.zproxy, click.Group)
    for noun in main.zproxy.list_commands(context):
        command = main.zproxy.get_command(context, noun)
        assert isinstance(command, click.Command), noun
        assert command.get_short_help_str(), noun


def test_help_lists_the_nouns_that_there_are_and_loads_none() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from zproxy_cli.main import zproxy;"
        "text = CliRunner().invoke(zproxy, ['--help']).stdout; print(text); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, modules = done.stdout.splitlines()
    listed = [line.split()[0] for line in text if line.startswith("  ") and line.split()[0] in main.NOUNS]
    here = Path(main.__file__).parent
    assert listed == [noun for noun in main.NOUNS if (here / f"{noun}.py").exists()]
    assert not [name for name in HEAVY if name in modules.split()]


def test_help_takes_less_than_the_blink_of_an_eye() -> None:
    command = [sys.executable, "-m", "zproxy_cli.main", "--help"]
    took = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run(command, capture_output=True, check=True)
        took.append(time.monotonic() - start)
    assert min(took) < HELP_S


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(main.zproxy, ["--version"], prog_name="zproxy")
    assert (result.stdout, result.exit_code) == (f"zproxy {__version__}\n", 0)


def test_an_unknown_noun_is_wrong_usage() -> None:
    result = CliRunner().invoke(main.zproxy, ["frobnicate"])
    assert result.exit_code == 2
    assert "No such command 'frobnicate'" in result.stderr


@pytest.fixture
def noun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A noun that tells its session, or fails."""

    @click.command()
    @click.option("--broken", is_flag=True)
    @session.pass_session
    def command(given: session.Session, broken: bool) -> None:
        if broken:
            raise ZproxyError("the pod demo/x is not enrolled: enroll it first")
        click.echo(f"{given.node_name} {given.verbosity}")

    monkeypatch.setattr("zproxy_cli.main.LazyGroup.get_command", lambda *_: command)


@pytest.mark.usefixtures("noun")
@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((), {}, "None 0"),
        (("--node", "a", "-vv"), {}, "a 2"),
        (("-v",), {"ZPROXY_NODE": "b"}, "b 1"),
        (("--node", "a"), {"ZPROXY_NODE": "b"}, "a 0"),
    ],
)
def test_options_and_environment_reach_the_session(
    words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    result = CliRunner(env={"ZPROXY_NODE": None, **environment}).invoke(main.zproxy, [*words, "noun"])
    assert result.stdout == f"{said}\n"


@pytest.mark.usefixtures("noun")
def test_what_goes_wrong_is_one_sentence_and_status_1() -> None:
    result = CliRunner().invoke(main.zproxy, ["noun", "--broken"])
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == ("", "Error: the pod demo/x is not enrolled: enroll it first\n")


@pytest.mark.usefixtures("noun")
def test_twice_verbose_shows_where_it_went_wrong() -> None:
    result = CliRunner().invoke(main.zproxy, ["-vv", "noun", "--broken"])
    assert isinstance(result.exception, ZproxyError)
