"""`zproxy bpf map show|list|dump|lookup|getnext`: maps and what is in them.

Besides bpftool's MAP a bare NAME is understood: the map that zproxy pinned under that name, of every node on
this machine or of the one that --node names.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click
from zproxy_cli import bpf_view
from zproxy_cli.bpf_view import ShortGroup, pins_of, print_view, switches
from zproxy_cli.output import note
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError
from zproxy.steering.dump import (
    MAP,
    View,
    check_shown,
    dump,
    is_bare,
    lookup,
    next_key,
    pinned_nodes,
    show_all,
    show_one,
    warning,
)
from zproxy.steering.maps import every_map, select

GRAMMAR: Final = "MAP is `id ID`, `name NAME`, `pinned FILE`, or the bare NAME of one of zproxy's own maps."
_WHAT: Final = "BPF maps"


@click.group("map", cls=ShortGroup, invoke_without_command=True, epilog=GRAMMAR)
@switches
@node_option
@click.pass_context
def command(context: click.Context) -> None:
    """Show maps and what is in them; without a command, all maps."""
    if context.invoked_subcommand is None:
        context.invoke(show_maps, words=())


@command.command("show", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="[MAP]", nargs=-1)
@pass_session
def show_maps(session: Session, words: Sequence[str]) -> None:
    """Describe all maps of this machine, or those that MAP names."""
    print_view(lambda view: _shown(words, session, view), _WHAT)


command.add_command(show_maps, "list")


@command.command("dump", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP", nargs=-1)
@pass_session
def dump_maps(session: Session, words: Sequence[str]) -> None:
    """Print all elements of a map."""
    _check_words(words, is_alone=True)
    print_view(lambda view: _dumped(words, session, view), _WHAT)


@command.command("lookup", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP [key [hex] BYTES]", nargs=-1)
@pass_session
def lookup_key(session: Session, words: Sequence[str]) -> None:
    """Print the element of a map with this key, a number for each byte."""
    _check_words(words)
    print_view(lambda view: _with_key(lookup, words, session, view), _WHAT)


@command.command("getnext", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="MAP [key [hex] BYTES]", nargs=-1)
@pass_session
def get_next_key(session: Session, words: Sequence[str]) -> None:
    """Print the key behind this one, the first key without one."""
    _check_words(words)
    print_view(lambda view: _with_key(next_key, words, session, view), _WHAT)


def _check_words(words: Sequence[str], *, is_alone: bool = False) -> None:
    """Raise UsageError unless `words` begin with a MAP, and end there when it stands alone."""
    size = 1 if words and is_bare(words[0], MAP) else 2
    if len(words) < size:
        raise click.UsageError(f"MAP is missing: {GRAMMAR}")
    if is_alone and len(words) > size:
        raise click.UsageError(f"nothing may follow MAP, but `{words[size]}` does")


def _shown(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    pins = pins_of(MAP)
    if not words:
        yield from show_all(every_map(), view, pins)
        return
    check_shown(words, MAP)
    with select(words, session.node_name, bpf_view.PIN_ROOT) as (maps, _):
        yield from show_one(maps, view, pins)


def _dumped(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    with select(words, session.node_name, bpf_view.PIN_ROOT) as (maps, _):
        for opened in maps:
            sentence = None if view.is_json else warning(opened.info, view.dialect)
            if sentence:
                note(sentence)
        yield from dump(maps, view)


def _with_key(
    work: Callable[..., Iterator[str]], words: Sequence[str], session: Session, view: View
) -> Iterator[str]:
    with select(words, session.node_name, bpf_view.PIN_ROOT) as (maps, rest):
        if is_bare(words[0], MAP) and len(maps) > 1:
            nodes = " and ".join(pinned_nodes(bpf_view.PIN_ROOT))
            raise ConfigError(f"{nodes} have a map {words[0]}: choose one with --node")
        yield from work(maps, rest, view)
