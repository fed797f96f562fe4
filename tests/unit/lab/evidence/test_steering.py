"""What eBPF holds about a pod, read from pins."""

import os
from pathlib import Path

import pytest

from zproxy.lab.evidence import steering
from zproxy.steering.layout import POD, PodEntry
from zproxy.steering.pins import NodePins

ENTRY = PodEntry(17, "demo/client", "uid", "10.244.1.5", "", 0, 1, 15001, 15006, 15008)


def test_a_node_without_pins_holds_nothing(tmp_path: Path) -> None:
    assert steering.pod_entry("node-a", 17, tmp_path) == ()


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodePins:
    """Pin one link of the pod, and answer for the map's file descriptor."""
    pins = NodePins("node-a", tmp_path)
    pins.pod(17).mkdir(parents=True)
    (pins.pod(17) / "sk_lookup").touch()
    null = tmp_path / "map"
    null.touch()
    monkeypatch.setattr(steering, "obj_get", lambda _: os.open(null, os.O_RDONLY))
    values = {ENTRY.key(): ENTRY.value()}
    monkeypatch.setattr(
        steering, "map_lookup", lambda fd, key, size: values.get(key) if size == POD.size else None
    )
    return pins


def test_a_pods_entry_and_links_are_told(pinned: NodePins, tmp_path: Path) -> None:
    entry, shared, own = steering.pod_entry("node-a", 17, tmp_path)
    assert (
        entry == "zp_pods[17]: demo/client, egress to 10.244.1.5:15001, plain ingress to 15006, HBONE 15008"
    )
    assert shared == f"links in {pinned.links}: (none)"
    assert own == f"links in {pinned.pod(17)}: sk_lookup"


@pytest.mark.usefixtures("pinned")
def test_a_pod_without_an_entry_is_not_steered(tmp_path: Path) -> None:
    assert steering.pod_entry("node-a", 18, tmp_path) == ()
