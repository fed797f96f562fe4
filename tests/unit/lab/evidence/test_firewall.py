"""Packet-filter rules, made by the tools that people use."""

import shutil

import pytest

from tests.support.netns import Namespace, namespace
from zproxy.lab.evidence.firewall import Rules, rules

pytestmark = pytest.mark.root

REDIRECT = ("-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001")


def test_a_new_namespace_has_no_rule() -> None:
    with namespace() as pod:
        assert rules(pod.netns) == Rules(0, 0, 0)


@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_iptables_over_nftables_is_counted(tool: str) -> None:
    with namespace() as pod:
        pod.execute(_tool(f"{tool}-nft"), *REDIRECT)
        assert rules(pod.netns) == Rules(1, 0, 1)


@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_legacy_iptables_is_counted(tool: str) -> None:
    with namespace() as pod:
        pod.execute(_tool(f"{tool}-legacy"), "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
        assert rules(pod.netns) == Rules(0, 1, 0)
        pod.execute(_tool(f"{tool}-legacy"), *REDIRECT)
        assert rules(pod.netns) == Rules(0, 2, 1)


def test_native_nftables_is_counted_and_a_redirection_recognised() -> None:
    with namespace() as pod:
        _nft(pod, "add table inet x", "add chain inet x c { type nat hook output priority -100; }")
        _nft(pod, "add rule inet x c tcp dport 80 counter accept")
        assert rules(pod.netns) == Rules(1, 0, 0)
        _nft(
            pod, "add rule inet x c tcp dport 80 redirect to :15001", "add rule inet x c dnat ip to 10.0.0.1"
        )
        assert rules(pod.netns) == Rules(3, 0, 2)


def test_a_table_without_a_tool_to_read_it_is_said_to_be_unknown() -> None:
    with namespace() as pod, pytest.MonkeyPatch.context() as patch:
        pod.execute(_tool("iptables-legacy"), "-A", "INPUT", "-j", "ACCEPT")
        patch.setenv("PATH", "/nonexistent")
        assert "iptables-save is not installed" in rules(pod.netns).unknown


def _nft(pod: Namespace, *commands: str) -> None:
    for command in commands:
        pod.execute(_tool("nft"), command)


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed: apt-get install iptables nftables"
    return path
