"""What a container runtime does with CNI plugins: environment, configuration, and the chain of them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [
        {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00::5/64", "interface": 1},
        {"address": "10.1.0.1/16", "interface": 0},
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {},
}


def environment(command: str, pod: str = "demo/client", **more: str) -> dict[str, str]:
    """Return what a runtime sets for `command` on a sandbox of `pod`."""
    namespace, _, name = pod.partition("/")
    arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID=7"
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": arguments if name else "",
        "CNI_PATH": "/opt/cni/bin",
    } | more


def configuration(**more: Any) -> bytes:
    """Return what a runtime writes to the plugin's stdin."""
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "zproxy-cni", "node": "node-a"}
    return json.dumps(conf | {"prevResult": RESULT} | more).encode()


class Answer(NamedTuple):
    """What a plugin said."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class Sandbox:
    """One sandbox of a pod, whose networks a runtime makes and ends as libcni does."""

    conf_dir: Path
    bins: Sequence[Path]
    """Where the plugins are."""
    prefix: Sequence[str]
    """Words before each plugin's name: they run in the node's network namespace."""
    pod: str
    container: str
    netns: str
    """Path; "" when it has gone."""
    address: str
    """For the plugin `static`, which is told by CNI_ARGS."""
    result: Any = None
    """Of the last ADD that succeeded."""

    def network(self) -> dict[str, Any]:
        """Return the network that a runtime takes: the first by name."""
        first = min(path for path in self.conf_dir.iterdir() if path.suffix == ".conflist")
        network: dict[str, Any] = json.loads(first.read_bytes())
        return network

    def add(self) -> Answer:
        """Run the chain; stop at the first failure, which is returned."""
        previous: dict[str, Any] = {}
        for plugin in self.network()["plugins"]:
            answer = self._run("ADD", plugin, previous)
            if answer.status:
                return answer
            previous = {"prevResult": answer.json}
        self.result = answer.json
        return answer

    def delete(self) -> list[Answer]:
        """Run the chain backwards, all of it."""
        return [self._run("DEL", plugin, self._former()) for plugin in reversed(self.network()["plugins"])]

    def ask(self, command: str, version: str = "1.0.0", **more: Any) -> Answer:
        """Run zproxy's plugin alone."""
        [plugin] = (each for each in self.network()["plugins"] if each["type"] == "zproxy-cni")
        return self._run(command, plugin, self._former() | more | {"cniVersion": version})

    def _former(self) -> dict[str, Any]:
        return {} if self.result is None else {"prevResult": self.result}

    def _run(self, command: str, plugin: Mapping[str, Any], more: Mapping[str, Any]) -> Answer:
        network = self.network()
        conf = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"], **more}
        variables = environment(
            command,
            self.pod,
            CNI_CONTAINERID=self.container,
            CNI_NETNS=self.netns,
            CNI_PATH=":".join(map(str, self.bins)),
        )
        variables["CNI_ARGS"] += f";IP={self.address}"
        [executable, *_] = (path for path in (found / plugin["type"] for found in self.bins) if path.exists())
        done = subprocess.run(
            [*self.prefix, executable],
            env={"PATH": os.environ["PATH"]} | variables,
            input=json.dumps(conf),
            capture_output=True,
            text=True,
            timeout=30,
        )
        return Answer(done.returncode, done.stdout, done.stderr)
