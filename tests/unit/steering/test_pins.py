"""Paths and names of pins; bpffs."""

from pathlib import Path

import pytest

from tests.support.bpf_maps import bpffs
from zproxy.errors import SteeringError
from zproxy.steering.pins import NodePins, ensure_bpffs, entries, interface_pin, pin_name, remove_tree


def test_names_with_dots_are_quoted_without_clashes() -> None:
    assert pin_name("node-1.example.org") == "node-1%2Eexample%2Eorg"
    assert pin_name("node-1%2Eexample") != pin_name("node-1.example")
    assert interface_pin("tcx_ingress", "eth0.100") == "tcx_ingress-eth0%2E100"


@pytest.mark.parametrize("node", ["", "a/b", "../up"])
def test_a_node_that_is_no_directory_name_is_refused(node: str) -> None:
    with pytest.raises(SteeringError, match="cannot name a node"):
        NodePins(node)


def test_a_node_keeps_to_its_own_directory(tmp_path: Path) -> None:
    pins = NodePins("..", tmp_path)
    assert pins.directory == tmp_path / "%2E%2E"
    for path in (pins.maps, pins.programs, pins.programs_new, pins.links, pins.pod(7)):
        assert pins.directory in path.parents


def test_strangers_are_what_no_zproxy_makes(tmp_path: Path) -> None:
    pins = NodePins("n", tmp_path)
    for path in (pins.maps, pins.links, pins.pods, pins.directory / "cilium"):
        path.mkdir(parents=True)
    assert pins.strangers() == [pins.directory / "cilium"]


def test_pod_directories_are_cookies(tmp_path: Path) -> None:
    pins = NodePins("n", tmp_path)
    for name in ("12", "7", "note"):
        (pins.pods / name).mkdir(parents=True)
    assert pins.pod_directories() == [pins.pods / "12", pins.pods / "7"]


def test_pins_of_links_are_the_nodes_and_each_pods(tmp_path: Path) -> None:
    pins = NodePins("n", tmp_path)
    for directory in (pins.links, pins.pod(7), pins.maps):
        directory.mkdir(parents=True)
        (directory / "sk_lookup").touch()
    assert pins.link_pins() == [pins.links / "sk_lookup", pins.pod(7) / "sk_lookup"]


def test_a_tree_is_removed_bottom_up_and_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "pin").touch()
    assert list(remove_tree(tmp_path / "a")) == [tmp_path / "a/b/pin", tmp_path / "a/b", tmp_path / "a"]
    assert list(remove_tree(tmp_path / "a")) == []
    assert entries(tmp_path / "a") == []


@pytest.mark.root
def test_a_mounted_bpffs_is_used_as_it_is(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root:
        ensure_bpffs(root / "zproxy" / "deeper")


def test_another_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteeringError, match="is not on a BPF file system"):
        ensure_bpffs(tmp_path / "zproxy")
