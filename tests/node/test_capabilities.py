"""The daemon needs what the DaemonSet grants: with exactly that it works, with less it says what lacks."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.boxed import BoxedNode, boxed_node, granted
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import pair
from tests.support.nodes import App, TwoNodes, exchange, peer_echo
from zproxy.model.capabilities import NEEDED, Capability

pytestmark = pytest.mark.root


@pytest.fixture
def boxed(tmp_path: Path) -> Iterator[BoxedNode]:
    with boxed_node("box", tmp_path, tmp_path / "ca") as node:
        node.config.write_text(yaml_of(workload("demo/none", "10.9.9.9", node=node.name)))
        yield node


def test_the_manifest_grants_what_is_needed_and_drops_the_rest() -> None:
    assert sorted(granted()) == sorted(each.name for each in NEEDED)


def test_with_the_daemonsets_capabilities_and_mounts_a_pod_is_enrolled_and_carried(tmp_path: Path) -> None:
    with boxed_node("a", tmp_path, tmp_path / "ca") as box, pair() as (client, server):
        nodes = TwoNodes(tmp_path, client, server)
        nodes.a = box
        nodes.write_mesh()
        try:
            nodes.start()
            nodes.enroll_client()
            nodes.enroll_server()
            app = App(server, 7201, peer_echo)
            assert exchange(nodes.dial(7201), b"x") == f"{client.ip4} x".encode()
            app.close()
            assert nodes.a.access(f"dst.hbone_addr={server.ip4}:7201 ")
            assert effective(box) == sorted(granted())
        finally:
            nodes.b.clean()


def effective(box: BoxedNode) -> list[str]:
    """Return the capabilities that the daemon has, as the kernel tells."""
    pid = int(Path(f"/run/zproxy/{box.name}/lock").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    mask = status.partition("CapEff:")[2].split()[0]
    done = subprocess.run(["capsh", f"--decode={mask}"], capture_output=True, text=True, check=True)
    return sorted(name.upper() for name in done.stdout.strip().partition("=")[2].split(","))


@pytest.mark.parametrize("lacking", NEEDED, ids=lambda each: each.name)
def test_without_one_of_them_the_start_fails_with_its_name(boxed: BoxedNode, lacking: Capability) -> None:
    boxed.capabilities = [name for name in granted() if name != lacking.name]
    boxed.launch()
    assert boxed.process is not None
    assert boxed.process.wait(30) == 1
    [sentence] = boxed.log.read_text().splitlines()
    assert sentence.startswith(f"Error: {lacking.name} is missing: it is needed to ")
