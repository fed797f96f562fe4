"""`zproxy doctor`: every requirement, found or not, with the remedy. Exit status 1 when one has failed."""

import click
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.requirements import FAILED, judge

from zproxy.steering.probe import gather

COLUMNS = (
    Column("CHECK", "check"),
    Column("STATUS", "status"),
    Column("DETAIL", "detail"),
    Column("REMEDY", "remedy"),
)


@click.command()
@output_option
@click.pass_context
def command(context: click.Context, output: str) -> None:
    """Check what this machine has and lacks, and say how to mend it."""
    checks = judge(gather())
    print_rows([check._asdict() for check in checks], COLUMNS, output)
    if any(check.status == FAILED for check in checks):
        context.exit(1)
