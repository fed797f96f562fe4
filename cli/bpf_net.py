"""`zproxy bpf net [show|list] [dev NAME]`: programs at the interfaces of the caller's network namespace."""

from collections.abc import Sequence

import click
from zproxy_cli.bpf_view import ShortGroup, print_view, switches

from zproxy.steering.dump_net import show_net


@click.group("net", cls=ShortGroup, invoke_without_command=True)
@switches
@click.pass_context
def command(context: click.Context) -> None:
    """Show the programs at interfaces: XDP, traffic control, the flow dissector."""
    if context.invoked_subcommand is None:
        context.invoke(show, words=())


@command.command("show")
@switches
@click.argument("words", metavar="[dev NAME]", nargs=-1)
def show(words: Sequence[str]) -> None:
    """Show what is attached in this network namespace, or to one interface of it."""
    print_view(lambda view: show_net(words, view), "what is attached to interfaces")


command.add_command(show, "list")
