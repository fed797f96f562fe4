"""vagrant/zproxy-demo on the lab: kubectl and docker are fakes that lead to its pods; all else is real."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zproxy.lab import inside, topology
from zproxy.lab.lifecycle import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "vagrant" / "zproxy-demo"
LAB = Lab()
KUBECTL = """
import os, sys
from pathlib import Path
words = sys.argv[1:]
assert words[:2] == ["--context", "kind-ztunnel-lab"], words
words = words[2:]
if words[:3] == ["label", "namespace", "demo"]:
    assert words[3:] == ["istio.io/dataplane-mode=ambient", "--overwrite"], words
    sys.exit()
namespace, verb, *rest = words[1:]
if verb == "get":
    selector = rest[rest.index("--selector") + 1]
    if "--field-selector" in rest:
        selector = rest[rest.index("--field-selector") + 1]
    sys.stdout.write((Path(os.environ["STATE"]) / selector.replace("/", "_")).read_text())
    sys.exit()
pod, dashes, *command = rest
assert (verb, dashes) == ("exec", "--"), words
if namespace == "zproxy-system":
    node = pod.removeprefix("zproxy-on-")
    assert command[0] == "zproxy", command
    os.execv(sys.executable, [sys.executable, "-P", "-m", "zproxy", "--node", node, *command[1:]])
os.execv(sys.executable, [sys.executable, "-P", "-m", "zproxy", "lab", "exec", f"demo/{pod}", "--", *command])
"""
DOCKER = """
import os, sys
verb, node, *command = sys.argv[1:]
assert verb == "exec", verb
if command[0] == "crictl":
    print("container" if command[1] == "ps" else os.environ["POD_PID"])
    sys.exit()
if command == ["readlink", "/proc/1/ns/net"]:
    sys.exit(print(os.readlink("/proc/self/ns/net")))
os.execvp(command[0], command)
"""


@pytest.fixture(scope="module", autouse=True)
def _lab() -> Iterator[None]:
    """The lab's names are known to users: one that is up is theirs."""
    assert not topology.present(LAB.layout), "a lab is up already: take it down with `zproxy lab down`"
    try:
        lab("up")
        yield
    finally:
        lab("down")


def lab(*words: str) -> None:
    argv = [sys.executable, "-P", "-m", "zproxy", "lab", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, env=inside.environment())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which the lab looks like the cluster, and a process in the client's pod."""
    for name, text in (("kubectl", KUBECTL), ("docker", DOCKER)):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
    for node, pod in zip(LAB.layout.nodes, LAB.layout.pods, strict=True):
        found = {
            "metadata": {"name": pod.name},
            "spec": {"nodeName": node.name},
            "status": {"phase": "Running", "podIPs": [{"ip": pod.ip4}, {"ip": pod.ip6}], "hostIP": node.ip4},
        }
        (tmp_path / f"app={pod.name}").write_text(json.dumps({"items": [found]}))
        daemon = {"metadata": {"name": f"zproxy-on-{node.name}"}, "status": {"phase": "Running"}}
        (tmp_path / f"spec.nodeName={node.name}").write_text(json.dumps({"items": [daemon]}))
    app = subprocess.Popen(["ip", "netns", "exec", LAB.layout.pods[0].netns, "sleep", "120"])
    try:
        yield (
            os.environ
            | inside.environment()
            | {
                "PATH": f"{tmp_path}:{os.environ['PATH']}:/usr/sbin:/sbin",
                "STATE": str(tmp_path),
                "POD_PID": str(app.pid),
            }
        )
    finally:
        app.kill()
        app.wait()


def demo(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, env=environment, timeout=100, cwd=ROOT
    )


def test_all_five_claims_hold_on_live_pods(cluster: dict[str, str]) -> None:
    done = demo(cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'"origin": "(10\.244\.1\.5|\[fd00:10:244:1::5\]):\d+"', done.stdout)
    assert done.stdout.count("  => holds") == 5
    assert done.stdout.endswith("All five claims hold.\n")


def test_a_pod_outside_the_mesh_breaks_claims_and_is_no_success(cluster: dict[str, str]) -> None:
    """Traffic in the clear must not pass for a proof: the enrolment is what the fake pretends."""
    rows = json.dumps([{"name": "client"}, {"name": "server"}])
    path = Path(cluster["STATE"]) / "kubectl"
    asked = 'assert command[0] == "zproxy", command\n'
    pretence = f'    if command[1] == "pods":\n        sys.exit(print({rows!r}))\n'
    path.write_text(path.read_text().replace(asked, asked + pretence))
    node, pod = LAB.layout.nodes[0], LAB.layout.pods[0]
    argv = [sys.executable, "-P", "-m", "zproxy", "--node", node.name]
    subprocess.run([*argv, "unenroll", pod.pod], check=True, timeout=30)
    try:
        done = demo(cluster)
    finally:
        subprocess.run([*argv, "enroll", pod.pod, "--netns", pod.netns], check=True, timeout=30)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "against it: nobody listens on 15001 in the pod" in done.stdout
    assert "against it: what the app said was seen in the clear" not in done.stdout, "15008 was not dialled"
    assert "Not as it should be: the app, claim 1, claim 2, claim 3, claim 4, claim 5\n" in done.stdout


def test_without_pods_it_says_what_to_do(cluster: dict[str, str]) -> None:
    (Path(cluster["STATE"]) / "app=client").write_text('{"items": []}')
    done = demo(cluster)
    assert done.returncode == 2
    assert done.stderr == "zproxy-demo: there is no running pod demo/client: run vagrant provision\n"
