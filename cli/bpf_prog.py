"""`zproxy bpf prog show|list`: programs, what they are and use.

Besides bpftool's PROG a bare NAME is understood: the program that zproxy pinned under that name, of every
node on this machine or of the one that --node names.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import click
from zproxy_cli import bpf_view
from zproxy_cli.bpf_view import ShortGroup, pins_of, print_view, switches
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.steering.dump import PROG, View, check_shown
from zproxy.steering.dump_prog import select_progs, show_progs

GRAMMAR: Final = (
    "PROG is `id ID`, `tag TAG`, `name NAME`, `pinned FILE`, or the bare NAME of a program of zproxy's own."
)


@click.group("prog", cls=ShortGroup, invoke_without_command=True, epilog=GRAMMAR)
@switches
@node_option
@click.pass_context
def command(context: click.Context) -> None:
    """Show programs; without a command, all of them."""
    if context.invoked_subcommand is None:
        context.invoke(show, words=())


@command.command("show", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="[PROG]", nargs=-1)
@pass_session
def show(session: Session, words: Sequence[str]) -> None:
    """Describe all programs of this machine, or those that PROG names."""
    print_view(lambda view: _shown(words, session, view), "BPF programs")


command.add_command(show, "list")


def _shown(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    pins = pins_of(PROG)
    if not words:
        yield from show_progs(None, view, pins)
        return
    check_shown(words, PROG)
    with select_progs(words, session.node_name, bpf_view.PIN_ROOT) as found:
        yield from show_progs(found, view, pins)
