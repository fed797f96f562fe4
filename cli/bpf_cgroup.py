"""`zproxy bpf cgroup show|list|tree`: programs at cgroups, with bpftool's words and exit status."""

from collections.abc import Sequence

import click
from zproxy_cli.bpf_view import ShortGroup, print_view, switches

from zproxy.steering.dump_cgroup import show_cgroup, show_tree

_WHAT = "what is attached to cgroups"


@click.group("cgroup", cls=ShortGroup, invoke_without_command=True)
@switches
@click.pass_context
def command(context: click.Context) -> None:
    """Show the programs that are attached to cgroups."""
    if context.invoked_subcommand is None:
        print_view(lambda view: show_cgroup((), str(context.info_name), view), _WHAT)


@command.command("show")
@switches
@click.argument("words", metavar="PATH [effective]", nargs=-1)
@click.pass_context
def show(context: click.Context, words: Sequence[str]) -> None:
    """Show what is attached to one cgroup; `effective` adds what its ancestors have attached."""
    print_view(lambda view: show_cgroup(words, str(context.info_name), view), _WHAT)


command.add_command(show, "list")


@command.command("tree")
@switches
@click.argument("words", metavar="[PATH [effective]]", nargs=-1)
def tree(words: Sequence[str]) -> None:
    """Show what is attached to each cgroup below PATH, or below the root of the hierarchy."""
    print_view(lambda view: show_tree(words, view), _WHAT)
