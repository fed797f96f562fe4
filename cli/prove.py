"""`zproxy prove POD POD`: claims about the mesh, each with evidence from the kernel and the wire."""

import click
from zproxy_cli.output import fail, output_option, print_rows, say

from zproxy.model.ports import ILLEGAL

PORT_HELP = "App port in the second pod; may be given again. Where nothing listens, an app does meanwhile."


@click.command("prove")
@click.argument("source", metavar="POD")
@click.argument("target", metavar="POD")
@click.option(
    "--port", "ports", type=click.IntRange(1, 65535), multiple=True, default=(8080,), help=PORT_HELP
)
@output_option
def command(source: str, target: str, ports: tuple[int, ...], output: str) -> None:
    """Prove, on two enrolled pods and with traffic from the first to the second, how the mesh works.

    Exit status 1 when a claim does not hold.
    """
    taken = ILLEGAL.intersection(ports)
    if taken:
        raise click.BadParameter(f"{min(taken)} is a port of zproxy's own", param_hint="--port")
    show(source, target, tuple(dict.fromkeys(ports)), output)


def show(source: str, target: str, ports: tuple[int, ...], output: str) -> None:
    """Print the proofs; end with status 1 when one does not hold."""
    from zproxy.lab.proof import render
    from zproxy.lab.prove import prove

    proofs = prove(source, target, ports)
    if output in ("json", "yaml"):
        print_rows([proof.row() for proof in proofs], (), output)
    else:
        say("\n\n".join(render(proof) for proof in proofs))
    broken = [str(proof.claim) for proof in proofs if not proof.holds]
    if broken:
        fail(f"claim {' and '.join(broken)} of {len(proofs)} {'do' if len(broken) > 1 else 'does'} not hold")
    if output not in ("json", "yaml"):
        say(f"\nAll {len(proofs)} claims hold for {source} and {target}.")
