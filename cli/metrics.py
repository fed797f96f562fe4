"""`zproxy metrics`: the counters of one daemon, for Prometheus and for people."""

import click
from zproxy_cli.output import flush, write
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError


@click.command(name="metrics")
@node_option
@pass_session
def command(session: Session) -> None:
    """Print the metrics of a daemon as OpenMetrics text: Istio's TCP families, and zproxy's own."""
    clients = session.clients()
    if len(clients) > 1:
        nodes = ", ".join(client.node for client in clients)
        raise ConfigError(f"several daemons run here ({nodes}): say which one is meant with --node NAME")
    write(clients[0].call("metrics"))
    flush()
