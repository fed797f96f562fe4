"""`zproxy lab up|prove|policy|exec|down`: two nodes and two pods on this machine, to try everything on."""

import click
from zproxy_cli import prove as prove_noun
from zproxy_cli.output import output_option, say


@click.group("lab")
def command() -> None:
    """Two nodes with a daemon each, a client pod and a server pod, in network namespaces of this machine."""


@command.command("up")
def lab_up() -> None:
    """Build the lab; where it is up already, say so."""
    from zproxy.lab.lifecycle import up

    up(say)


@command.command("prove")
@output_option
def lab_prove(output: str) -> None:
    """Prove the claims of `zproxy prove` between the lab's pods."""
    from zproxy.lab.layout import APP_PORTS, CLIENT, SERVER

    prove_noun.show(CLIENT, SERVER, APP_PORTS, output)


@command.command("policy")
def lab_policy() -> None:
    """Allow the client, deny it and let it in again, under a connection that it has open."""
    from zproxy.lab.policy import show

    show(say)


@command.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("pod")
@click.argument("words", metavar="-- COMMAND [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
def lab_exec(pod: str, words: tuple[str, ...]) -> None:
    """Run a command in the network of a pod; its exit status is this command's."""
    from zproxy.lab.inside import become
    from zproxy.lab.lifecycle import open_pod

    argv = words[1:] if words[0] == "--" else words
    if not argv:
        raise click.UsageError("no command after --")
    become(open_pod(pod), argv)


@command.command("down")
def lab_down() -> None:
    """Remove everything of the lab, also what is left of one that was killed."""
    from zproxy.lab.lifecycle import down

    down(say)
