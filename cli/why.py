"""`zproxy why`: what becomes of a connection, and by which rule. Exit status 1 when it would be refused."""

from typing import TYPE_CHECKING, Any

import click
from zproxy_cli.output import print_value, say
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError

if TYPE_CHECKING:
    from zproxy.node.client import Client

FORMATS = ("text", "json", "yaml")


@click.command(name="why")
@click.argument("source", metavar="[SRC", required=False)
@click.argument("destination", metavar="DST[:PORT]]", required=False)
@click.option(
    "--protocol",
    type=click.Choice(("tcp", "udp", "dns")),
    default="tcp",
    help="What SRC sends; tcp if not given.",
)
@click.option(
    "--connection", "number", type=int, metavar="ID", help="Explain this one of `zproxy connections`."
)
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="How to print.")
@node_option
@pass_session
def command(
    session: Session,
    source: str | None,
    destination: str | None,
    protocol: str,
    number: int | None,
    output: str,
) -> None:
    """Say what becomes of a connection of the enrolled pod SRC (NAMESPACE/NAME) to DST, and why.

    DST is an address, NAMESPACE/POD, or a service's name as an app writes it. The code that decides about
    connections answers. Exit status 1 when it would be refused, by any of the ways that it may take.
    """
    if number is None and (source is None or destination is None):
        raise click.UsageError(
            "say whose connection to what is meant: zproxy why SRC DST[:PORT], or --connection ID"
        )
    if number is not None and source is not None:
        raise click.UsageError("--connection needs no SRC and no DST")
    if number is not None:
        answer = _only_client(session).call("why_connection", number=number)
    else:
        assert source is not None  # seen to above
        client = session.client_for(source)
        answer = client.call("why", source=source, destination=destination, protocol=protocol)
    if output == "text":
        _print(answer)
    else:
        print_value(answer, output)
    if not answer["allowed"]:
        raise click.exceptions.Exit(1)


def _only_client(session: Session) -> "Client":
    """Return the daemon that numbered the connection: each counts for itself."""
    clients = session.clients()
    if len(clients) > 1:
        nodes = ", ".join(client.node for client in clients)
        raise ConfigError(f"each daemon numbers its own connections: choose one of {nodes} with --node")
    return clients[0]


def _print(answer: dict[str, Any]) -> None:
    """Print sections, steps below them by depth, and the sentence."""
    for section in answer["sections"]:
        say(section["title"])
        steps = section["steps"]
        heads = [f"{'  ' * step['depth']}{step['subject']}" for step in steps]
        first, second = (max(map(len, column)) for column in (heads, [step["outcome"] for step in steps]))
        for head, step in zip(heads, steps, strict=True):
            say(f"  {head:{first}}   {step['outcome']:{second}}   {step['detail']}".rstrip())
        say()
    say(f"{answer['sentence']}.")
