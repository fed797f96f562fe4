"""`zproxy bpf map show|list|dump|lookup|getnext`: bpftool's grammar, output and status; no daemon needed.

Besides bpftool's MAP a bare NAME is understood: the map that zproxy pinned under that name, of every node on
this machine or of the one that --node names.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click
from zproxy_cli import bpf_dump
from zproxy_cli.output import flush, note, write
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.config import PIN_ROOT
from zproxy.errors import ConfigError, RequirementError, SteeringError
from zproxy.steering.dump import (
    DumpError,
    Pins,
    View,
    dump,
    find_pins,
    installed,
    lookup,
    next_key,
    show_all,
    show_one,
    warning,
)
from zproxy.steering.maps import every_map, is_bare, pinned_nodes, select
from zproxy.steering.probe import may_read_maps

GRAMMAR: Final = "MAP is `id ID`, `name NAME`, `pinned FILE`, or the bare NAME of one of zproxy's own maps."
_SWITCHES: Final = (
    ("-j", "--json", "Print JSON."),
    ("-p", "--pretty", "Print JSON, indented."),
    ("-f", "--bpffs", "Show where maps are pinned."),
)
_META: Final = "zproxy_cli.bpf."

_Command = TypeVar("_Command", bound=Callable[..., Any])


class ShortGroup(click.Group):
    """A group whose commands may be cut short as bpftool's may; the first that begins so is meant."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that `cmd_name` is, or begins."""
        return next((command for name, command in self.commands.items() if name.startswith(cmd_name)), None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in bpftool's order."""
        return list(self.commands)


def switches(command: _Command) -> _Command:
    """Let a command take -j, -p and -f: bpftool takes them wherever they stand."""

    def keep(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            context.meta[f"{_META}{option.name}"] = True

    for short, long, text in reversed(_SWITCHES):
        command = click.option(short, long, is_flag=True, callback=keep, expose_value=False, help=text)(
            command
        )
    return command


@click.group(cls=ShortGroup)
@switches
def command() -> None:
    """Look at BPF objects: the grammar and the output are bpftool's."""


@command.group("map", cls=ShortGroup, invoke_without_command=True, epilog=GRAMMAR)
@switches
@node_option
@click.pass_context
def bpf_map(context: click.Context) -> None:
    """Show maps and what is in them; without a command, all maps."""
    if context.invoked_subcommand is None:
        context.invoke(show_maps, words=())


@bpf_map.command("show", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="[MAP]", nargs=-1)
@pass_session
def show_maps(session: Session, words: Sequence[str]) -> None:
    """Describe all maps of this machine, or those that MAP names."""
    _print(lambda view: _shown(words, session, view))


bpf_map.add_command(show_maps, "list")
command.add_command(bpf_dump.command)


@bpf_map.command("dump", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP", nargs=-1)
@pass_session
def dump_maps(session: Session, words: Sequence[str]) -> None:
    """Print all elements of a map."""
    _check_words(words, is_alone=True)
    _print(lambda view: _dumped(words, session, view))


@bpf_map.command("lookup", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP [key [hex] BYTES]", nargs=-1)
@pass_session
def lookup_key(session: Session, words: Sequence[str]) -> None:
    """Print the element of a map with this key, a number for each byte."""
    _check_words(words)
    _print(lambda view: _with_key(lookup, words, session, view))


@bpf_map.command("getnext", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP [key [hex] BYTES]", nargs=-1)
@pass_session
def get_next_key(session: Session, words: Sequence[str]) -> None:
    """Print the key behind this one, the first key without one."""
    _check_words(words)
    _print(lambda view: _with_key(next_key, words, session, view))


def _check_words(words: Sequence[str], *, is_alone: bool = False) -> None:
    """Raise UsageError unless `words` begin with a MAP, and end there when it stands alone."""
    size = 1 if words and is_bare(words[0]) else 2
    if len(words) < size:
        raise click.UsageError(f"MAP is missing: {GRAMMAR}")
    if is_alone and len(words) > size:
        raise click.UsageError(f"nothing may follow MAP, but `{words[size]}` does")


def _shown(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    pins = find_pins() if click.get_current_context().meta.get(f"{_META}bpffs") else Pins()
    if not words:
        yield from show_all(every_map(), view, pins)
        return
    if len(words) != (1 if is_bare(words[0]) else 2):
        raise DumpError(f"what is '{words[0]}'?")
    with select(words, session.node_name, PIN_ROOT) as (maps, _):
        yield from show_one(maps, view, pins)


def _dumped(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    with select(words, session.node_name, PIN_ROOT) as (maps, _):
        for opened in maps:
            sentence = None if view.is_json else warning(opened.info, view.dialect)
            if sentence:
                note(sentence)
        yield from dump(maps, view)


def _with_key(
    work: Callable[..., Iterator[str]], words: Sequence[str], session: Session, view: View
) -> Iterator[str]:
    with select(words, session.node_name, PIN_ROOT) as (maps, rest):
        if is_bare(words[0]) and len(maps) > 1:
            raise ConfigError(
                f"{' and '.join(pinned_nodes(PIN_ROOT))} have a map {words[0]}: choose one with --node"
            )
        yield from work(maps, rest, view)


def _print(work: Callable[[View], Iterator[str]]) -> None:
    """Print what `work` yields, and its failure as bpftool prints one: in JSON, as an object on stdout."""
    if not may_read_maps():
        raise RequirementError("reading BPF maps needs root (CAP_SYS_ADMIN): run the same command with sudo")
    meta = click.get_current_context().meta
    is_pretty = f"{_META}pretty" in meta
    view = View(is_pretty or f"{_META}json" in meta, is_pretty, installed())
    has_written = False
    try:
        for chunk in work(view):
            write(chunk)
            has_written = has_written or bool(chunk)
    except SteeringError as error:
        _fail(error, view, has_written=has_written)
    finally:
        flush()


def _fail(error: SteeringError, view: View, *, has_written: bool) -> NoReturn:
    sentence = str(error)
    if view.is_json and not has_written:
        write((view.layout.error(sentence) if sentence else "") + "\n")
    elif sentence:
        flush()
        note(f"Error: {sentence}")
    click.get_current_context().exit(error.status if isinstance(error, DumpError) else 1)
