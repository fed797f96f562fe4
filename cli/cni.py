"""`zproxy cni`: put the CNI plugin into the node's network, take it out, look at it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from zproxy_cli.output import Column, note, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError

COLUMNS = (Column("WHAT", "what"), Column("PATH", "path"), Column("RESULT", "result"))
_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)


@click.group(name="cni")
def command() -> None:
    """Enrol pods at their birth: a plugin that the container runtime runs before their first container."""


def _site_options(decorated: _Command) -> _Command:
    conf = click.option(
        "--conf-dir",
        type=_PATH,
        default="/etc/cni/net.d",
        show_default=True,
        help="Where the runtime finds networks; it takes the first by name.",
    )
    plugins = click.option(
        "--bin-dir",
        type=_PATH,
        default="/opt/cni/bin",
        show_default=True,
        help="Where it finds their plugins.",
    )
    return conf(plugins(decorated))


_python_option = click.option(
    "--python", type=_PATH, help="The interpreter that runs the plugin on the node; default: this one."
)


@command.command()
@_site_options
@_python_option
@click.option(
    "--fail-open", is_flag=True, help="Let a pod start outside the mesh when it cannot be enrolled."
)
@click.option(
    "--wait-ms",
    type=click.IntRange(0, 60_000),
    help="How long the mesh may take to learn of a pod.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(min=1),
    help="How long the daemon may take, beside that.",
)
@output_option
@node_option
@pass_session
def install(
    session: Session,
    /,
    conf_dir: Path,
    bin_dir: Path,
    python: Path | None,
    output: str,
    **settings: bool | int | None,
) -> None:
    """Chain the plugin behind the node's network. Doing it again changes nothing but what differs.

    The former configuration is kept beside it, and comes back with `zproxy cni uninstall`.
    """
    from zproxy.cni import install as installing

    entry: dict[str, Any] = {"type": "zproxy-cni", "node": _node(session)}
    keys = {"fail_open": "failOpen", "wait_ms": "waitMs", "timeout_ms": "timeoutMs"}
    entry |= {keys[name]: value for name, value in settings.items() if value}
    site = installing.Site(conf_dir, bin_dir)
    steps = _readable(lambda: installing.install(site, entry, _launcher(python)))
    print_rows([step._asdict() for step in steps], COLUMNS, output)


@command.command()
@_site_options
@click.option("--keep-plugin", is_flag=True, help="Leave the executable, for pods that were made with it.")
@output_option
def uninstall(conf_dir: Path, bin_dir: Path, output: str, *, keep_plugin: bool) -> None:
    """Take the plugin out of the node's networks; enrolled pods stay enrolled.

    What nobody else has changed meanwhile is as it was before, byte for byte.
    """
    from zproxy.cni import install as installing

    site = installing.Site(conf_dir, bin_dir)
    steps = _readable(lambda: installing.uninstall(site, keep_plugin=keep_plugin))
    if not steps:
        note("Nothing of zproxy-cni is on this machine.")
        return
    print_rows([step._asdict() for step in steps], COLUMNS, output)


@command.command()
@_site_options
@_python_option
@output_option
@click.pass_context
def status(context: click.Context, conf_dir: Path, bin_dir: Path, python: Path | None, output: str) -> None:
    """Say whether the runtime runs the plugin; fails when it does not."""
    from zproxy.cni import install as installing

    site = installing.Site(conf_dir, bin_dir)
    steps = _readable(lambda: list(installing.status(site, _launcher(python))))
    print_rows([step._asdict() for step in steps], COLUMNS, output)
    if any(step.result != "installed" for step in steps):
        context.exit(1)


def _node(session: Session) -> str:
    clients = session.clients()
    if len(clients) > 1:
        nodes = " or ".join(client.node for client in clients)
        raise ConfigError(f"several daemons run here: choose {nodes} with --node")
    return clients[0].node


def _launcher(python: Path | None) -> bytes:
    from zproxy import cni
    from zproxy.cni.launcher import launcher

    return launcher(python or Path(sys.executable), Path(cni.__path__[0]).parents[1])


_Result = TypeVar("_Result")


def _readable(work: Callable[[], _Result]) -> _Result:
    """Make a file that cannot be read or written a sentence."""
    try:
        return work()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(f"cannot read or write {error.filename}: {reason}; is this root?") from error
