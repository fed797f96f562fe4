"""`zproxy bpf map|prog|link|cgroup|net`: bpftool, word for word; `zproxy bpf dump`: the same, decoded."""

import click
from zproxy_cli import bpf_cgroup, bpf_dump, bpf_link, bpf_map, bpf_net, bpf_prog
from zproxy_cli.bpf_view import TopGroup, switches


@click.group(cls=TopGroup)
@switches
def command() -> None:
    """Look at BPF objects: the grammar and the output are bpftool's."""


for noun in (bpf_prog, bpf_map, bpf_link, bpf_cgroup, bpf_net, bpf_dump):
    command.add_command(noun.command)
