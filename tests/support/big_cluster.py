"""A cluster of 5,000 pods behind an ApiServer in a process of its own, so that its work is not measured.

Run as a module it prints where its kubeconfig is, then does what each line of its input says.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.apiserver import ApiServer, api_server
from tests.support.kubeobjects import kube_endpoint, kube_namespace, kube_pod, kube_service, kube_slice

ROOT = Path(__file__).parents[2]
PODS = 5000
NAMESPACES = 50
SERVICES = 500
PER_SERVICE = PODS // SERVICES


class BigCluster:
    """Handle of the process."""

    def __init__(self, process: "subprocess.Popen[str]", kubeconfig: Path) -> None:
        self._process = process
        self.kubeconfig = kubeconfig

    def do(self, command: str) -> None:
        """Have it do something, and wait until it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{command} done\n"


@contextmanager
def big_cluster(directory: Path) -> Iterator[BigCluster]:
    """Start it, and end it afterwards."""
    kubeconfig = directory / "kubeconfig"
    command = [sys.executable, "-m", "tests.support.big_cluster", str(kubeconfig)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield BigCluster(process, kubeconfig)
        process.stdin.close()


def pod_of(number: int, *, ready: bool = True) -> dict[str, Any]:
    """Return a pod as large as they are: some 7 kB, most of which nobody here reads."""
    key = f"ns-{number % NAMESPACES}/web-{number}-abcde"
    labels = {"app": f"web-{number % SERVICES}"}
    item = kube_pod(key, _ip(number), node=f"node-{number % 100}", labels=labels, ready=ready)
    fields: dict[str, Any] = {f"f:key-{each}": {} for each in range(120)}
    item["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": fields}]
    environment = [{"name": f"NAME_{each}", "value": "x" * 50} for each in range(50)]
    item["spec"]["containers"] = [{"name": "app", "image": "registry/app:1", "env": environment}]
    return item


def fill(server: ApiServer) -> None:
    """Have all of it."""
    for number in range(NAMESPACES):
        server.put("namespaces", kube_namespace(f"ns-{number}", "ambient"))
    for number in range(100):
        labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": f"z{number % 3}"}
        server.put("nodes", {"metadata": {"name": f"node-{number}", "labels": labels}})
    for number in range(PODS):
        server.put("pods", pod_of(number))
    for number in range(SERVICES):
        namespace = number % NAMESPACES
        first = number // NAMESPACES * PER_SERVICE  # pods of a namespace have numbers NAMESPACES apart
        mine = [namespace + NAMESPACES * (first + each) for each in range(PER_SERVICE)]
        endpoints = [kube_endpoint(_ip(each), f"web-{each}-abcde") for each in mine]
        key = f"ns-{namespace}/web-{number}"
        server.put("services", kube_service(key, f"10.96.{number // 250}.{number % 250 + 1}"))
        server.put("endpointslices", kube_slice(f"{key}-x", f"web-{number}", endpoints))


def _ip(number: int) -> str:
    return f"10.1.{number // 250}.{number % 250 + 1}"


def main() -> None:
    with api_server() as server:
        fill(server)
        server.kubeconfig(Path(sys.argv[1]))
        _say("ready")
        for line in sys.stdin:
            command = line.strip()
            if command == "touch":  # every pod becomes another
                for number in range(PODS):
                    server.put("pods", pod_of(number, ready=False))
            elif command == "lose":  # all connections, and all that watches could go on from
                server.drop()
                server.delete("pods", "ns-0/web-0-abcde")
                server.compact()
                server.start()
            _say(f"{command} done")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
