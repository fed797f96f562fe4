"""The `zproxy` command: a group of nouns, each in a module of its own that is loaded when it is called.

A noun's module defines `command`. The table says what each is for, so that `zproxy --help` imports none.
Exit status: 0 done, 1 failed, 2 wrong usage; `zproxy bpf` keeps bpftool's.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click
from zproxy_cli.session import NODE_HELP, Session

from zproxy import __version__
from zproxy.errors import ZproxyError

NOUNS: Final = {
    "run": "Run the daemon of a node.",
    "enroll": "Take a pod into the mesh.",
    "unenroll": "Let a pod out of the mesh.",
    "pods": "List enrolled pods.",
    "status": "Compare pods with the kernel's state.",
    "workloads": "List the workloads of the mesh.",
    "services": "List the services of the mesh.",
    "policies": "List the policies of the mesh.",
    "endpoints": "List endpoints, as the balancer sees them.",
    "certs": "List certificates and their ends.",
    "connections": "List connections, open and ended.",
    "why": "Explain what becomes of a connection.",
    "tunnels": "List HBONE tunnels and their streams.",
    "cni": "Enrol pods at their birth, by a CNI plugin.",
    "udp": "List UDP that leaves pods in the clear.",
    "metrics": "Print counters as OpenMetrics text.",
    "bpf": "Look at BPF maps, in bpftool's own words.",
    "cleanup": "Remove what a node left on this machine.",
    "doctor": "Check what this machine has and lacks.",
    "prove": "Prove the claims of the mesh on two pods.",
    "lab": "Build two nodes and two pods to try it all.",
}
"""Noun → what its module is for, in the order of the help. Only nouns whose module exists are shown."""


class LazyGroup(click.Group):
    """A group whose commands are modules beside this one, and whose failures are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the nouns that there are."""
        return [noun for noun in NOUNS if find_spec(f"zproxy_cli.{noun}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the module of a noun."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"zproxy_cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the nouns from the table, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(noun, NOUNS[noun]) for noun in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises for people is printed as one sentence, exit status 1."""
        try:
            return super().invoke(ctx)
        except ZproxyError as error:
            if ctx.ensure_object(Session).verbosity > 1:
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", metavar="NAME", envvar="ZPROXY_NODE", show_envvar=True, help=NODE_HELP)
@click.option("-v", "--verbose", count=True, help="Say more; twice, failures show where they came from.")
@click.version_option(__version__, "--version", message="%(prog)s %(version)s")
@click.pass_context
def zproxy(context: click.Context, node: str | None, verbose: int) -> None:
    """A mesh between pods: eBPF steers their TCP into HBONE, mTLS from pod IP to pod IP."""
    context.obj = Session(node, verbose)


def main() -> None:
    """Run the command that the arguments of this process name."""
    zproxy(prog_name="zproxy")


if __name__ == "__main__":
    main()
