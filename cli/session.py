"""What the commands of one invocation share: which node is meant, how much is said, the daemons to ask."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zproxy.errors import ConfigError, RequirementError

if TYPE_CHECKING:
    from zproxy.node.client import Client

NODE_HELP = "Which node's daemon is meant; needed only where several run on this machine."

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Session:
    """Made by the `zproxy` group, handed to commands by `pass_session`."""

    __slots__ = ("node_name", "verbosity")

    def __init__(self, node_name: str | None = None, verbosity: int = 0) -> None:
        self.node_name = node_name
        """As the user gave it, None where nobody did."""
        self.verbosity = verbosity

    def clients(self) -> "list[Client]":
        """Return a client for the given node, or for each that runs here; raise when there is none."""
        from zproxy.node.client import Client, running_nodes

        nodes = [self.node_name] if self.node_name else running_nodes()
        if not nodes:
            raise RequirementError(
                "no zproxy daemon runs on this machine: start one with `zproxy run --node NAME --config FILE`"
            )
        return [Client(node) for node in nodes]

    def client_for(self, pod: str | None) -> "Client":
        """Return the client of the daemon on whose node the mesh has `pod`; None means the only daemon."""
        clients = self.clients()
        if len(clients) == 1:
            return clients[0]
        if pod is None:
            names = ", ".join(client.node for client in clients)
            raise ConfigError(f"several daemons run here ({names}): name the pod, or choose one with --node")
        for client in clients:
            for row in client.call("workloads"):
                if f"{row['namespace']}/{row['name']}" == pod and row["node"] == client.node:
                    return client
        nodes = ", ".join(client.node for client in clients)
        raise ConfigError(
            f"unknown pod {pod}: none of {nodes} has it; `zproxy workloads` lists what there is"
        )


def node_option(command: _Command) -> _Command:
    """Let a command take --node itself, so that it may stand behind the noun as well as before it."""

    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value:
            context.ensure_object(Session).node_name = value

    option = click.option("--node", metavar="NAME", callback=keep, expose_value=False, help=NODE_HELP)
    return option(command)


pass_session = click.make_pass_decorator(Session, ensure=True)
