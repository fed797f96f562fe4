"""`zproxy bpf link show|list`: links, what runs where.

Besides bpftool's LINK a bare NAME is understood: the links that zproxy pinned under that name, of every node
on this machine or of the one that --node names. Some serve a node, others one pod each.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import click
from zproxy_cli import bpf_view
from zproxy_cli.bpf_view import ShortGroup, pins_of, print_view, switches
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.steering.dump import LINK, View, check_shown
from zproxy.steering.dump_link import select_links, show_links

GRAMMAR: Final = (
    "LINK is `id ID`, `pinned FILE`, or the bare NAME under which zproxy pinned links of its own."
)


@click.group("link", cls=ShortGroup, invoke_without_command=True, epilog=GRAMMAR)
@switches
@node_option
@click.pass_context
def command(context: click.Context) -> None:
    """Show links; without a command, all of them."""
    if context.invoked_subcommand is None:
        context.invoke(show, words=())


@command.command("show", epilog=GRAMMAR)
@switches
@node_option
@click.argument("words", metavar="[LINK]", nargs=-1)
@pass_session
def show(session: Session, words: Sequence[str]) -> None:
    """Describe all links of this machine, or those that LINK names."""
    print_view(lambda view: _shown(words, session, view), "BPF links")


command.add_command(show, "list")


def _shown(words: Sequence[str], session: Session, view: View) -> Iterator[str]:
    pins = pins_of(LINK)
    if not words:
        yield from show_links(None, view, pins)
        return
    check_shown(words, LINK)
    with select_links(words, session.node_name, view.dialect, bpf_view.PIN_ROOT) as found:
        yield from show_links(found, view, pins)
