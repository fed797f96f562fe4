"""The packet-filter rules of a namespace, nftables and both kinds of iptables, and those that redirect.

nftables (which `iptables-nft` writes too) is counted by a dump from the kernel. The old x_tables have no
dump; the kernel says which tables exist, and only if one does is `iptables-legacy-save` asked.
"""

import errno
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.lab import inside
from zproxy.lab.evidence import netlink
from zproxy.net.netns import Netns

_NFT_MSG_GETRULE: Final = 10 << 8 | 7
"""Subsystem NFNL_SUBSYS_NFTABLES, message NFT_MSG_GETRULE."""
_NFGENMSG: Final = b"\0\0\0\0"
"""Family unspecified: rules of every family."""
_NFT_REDIRECTS: Final = (b"redir\0", b"nat\0", b"tproxy\0", b"REDIRECT\0", b"DNAT\0", b"TPROXY\0")
"""Expressions, and x_tables targets that iptables-nft embeds, as they stand in a rule's attributes."""
_NO_NFTABLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})
"""What a kernel without nf_tables answers: there can be no rule."""
_XTABLES: Final = (("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables"))
_XTABLES_REDIRECTS: Final = ("REDIRECT", "DNAT", "TPROXY")


class Rules(NamedTuple):
    """How many rules there are, and how many of them send traffic elsewhere than its packets say."""

    nft: int
    iptables: int
    redirecting: int
    unknown: str = ""
    """Why the count is incomplete; empty when it is complete."""


def rules(netns: Netns) -> Rules:
    """Count the rules inside `netns`."""
    nft, redirecting = _nft_rules(netns)
    legacy: list[str] = []
    for names, tool in _XTABLES:
        tables = _registered_tables(netns, names)
        if not tables:
            continue
        saver = shutil.which(f"{tool}-legacy-save") or shutil.which(f"{tool}-save")
        if saver is None:
            unknown = f"tables {', '.join(tables)} exist and {tool}-save is not installed (package iptables)"
            return Rules(nft, len(legacy), redirecting, unknown)
        _, saved, _ = inside.output(netns, [saver])
        legacy += [line for line in saved.decode().splitlines() if line.startswith("-A")]
    moved = sum(f"-j {target}" in line for line in legacy for target in _XTABLES_REDIRECTS)
    return Rules(nft, len(legacy), redirecting + moved)


def _nft_rules(netns: Netns) -> tuple[int, int]:
    try:
        found = netlink.dump(netns, netlink.NETFILTER, _NFT_MSG_GETRULE, _NFGENMSG)
    except OSError as error:
        if error.errno in _NO_NFTABLES:
            return 0, 0
        raise
    return len(found), sum(any(name in rule for name in _NFT_REDIRECTS) for rule in found)


def _registered_tables(netns: Netns, names: str) -> list[str]:
    path = Path("/proc/thread-self/net") / names
    try:
        return netns.run(path.read_text).split()
    except FileNotFoundError:  # no x_tables in this kernel: there can be no rule
        return []
