"""What the nouns of `zproxy bpf` share: bpftool's abbreviations, its options, its output and its failures."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn, TypeVar

import click
from zproxy_cli.output import flush, note, write

from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.steering.dump import DumpError, Misuse, Noun, Pins, View, find_pins, installed
from zproxy.steering.probe import may_read_maps

__all__ = ["PIN_ROOT", "ShortGroup", "TopGroup", "pins_of", "print_view", "switches"]

_SWITCHES: Final = (
    ("-j", "--json", "Print JSON."),
    ("-p", "--pretty", "Print JSON, indented."),
    ("-f", "--bpffs", "Show where objects are pinned."),
)
_META: Final = "zproxy_cli.bpf."
_NULL: Final = "null\n"
"""What bpftool prints in JSON instead of its usage."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class ShortGroup(click.Group):
    """A group whose commands may be cut short as bpftool's may; the first that begins so is meant."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that `cmd_name` is, or begins."""
        return next((command for name, command in self.commands.items() if name.startswith(cmd_name)), None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in bpftool's order."""
        return list(self.commands)


class WrongUsage(click.UsageError):
    """A wrong command line, with the status that bpftool ends with."""

    exit_code = DumpError().status


class TopGroup(ShortGroup):
    """The group above all nouns: a wrong command line ends as bpftool does, in JSON with `null`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options of the group itself."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise WrongUsage(error.format_message(), error.ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a noun."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if not _is_json(ctx.meta):
                raise WrongUsage(error.format_message(), error.ctx) from error
            write(_NULL)
            flush()
            ctx.exit(WrongUsage.exit_code)


def switches(command: _Command) -> _Command:
    """Let a command take -j, -p and -f: bpftool takes them wherever they stand."""

    def keep(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            context.meta[f"{_META}{option.name}"] = True

    for short, long, text in reversed(_SWITCHES):
        command = click.option(short, long, is_flag=True, callback=keep, expose_value=False, help=text)(
            command
        )
    return command


def pins_of(noun: Noun) -> Pins:
    """Return where objects of a kind are pinned, if -f asks for that; nothing otherwise."""
    return find_pins(noun) if f"{_META}bpffs" in click.get_current_context().meta else Pins()


def print_view(work: Callable[[View], Iterator[str]], what: str) -> None:
    """Print what `work` yields, and its failure as bpftool prints one: in JSON, as an object on stdout.

    `what` it reads stands in the sentence for those who may not.
    """
    if not may_read_maps():
        raise RequirementError(f"reading {what} needs root (CAP_SYS_ADMIN): run the same command with sudo")
    meta = click.get_current_context().meta
    view = View(_is_json(meta), f"{_META}pretty" in meta, installed())
    has_written = False
    try:
        for chunk in work(view):
            write(chunk)
            has_written = has_written or bool(chunk)
    except SteeringError as error:
        _fail(error, view, has_written=has_written)
    finally:
        flush()


def _fail(error: SteeringError, view: View, *, has_written: bool) -> NoReturn:
    sentence = str(error)
    if view.is_json and isinstance(error, Misuse):
        write(_NULL)
    elif view.is_json and not has_written:
        write((view.layout.error(sentence) if sentence else "") + "\n")
    elif sentence:
        flush()
        note(f"Error: {sentence}")
    click.get_current_context().exit(error.status if isinstance(error, DumpError) else 1)


def _is_json(meta: Mapping[str, Any]) -> bool:
    return f"{_META}json" in meta or f"{_META}pretty" in meta
