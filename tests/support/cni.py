"""What a container runtime does with CNI plugins: environment, configuration, and the chain of them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
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


class Runtime:
    """Runs the plugins of a network as libcni does, for one sandbox; `conf_dir` and `bins` are its own."""

    def __init__(self, conf_dir: Path, bins: Sequence[Path], netns: str, pod: str, container: str) -> None:
        self.conf_dir = conf_dir
        self.bins = bins
        self.netns = netns
        self.pod = pod
        self.container = container
        self.result: Any = None
        """Of the last ADD that succeeded."""

    def network(self) -> dict[str, Any]:
        """Return the network that a runtime takes: the first by name."""
        first = min(path for path in self.conf_dir.iterdir() if path.suffix in (".conf", ".conflist"))
        network: dict[str, Any] = json.loads(first.read_bytes())
        return network if first.suffix == ".conflist" else network | {"plugins": [network]}

    def add(self) -> Answer:
        """Run the chain; stop at the first failure, which is returned."""
        answer = Answer(0, "null", "")
        for plugin in self.network()["plugins"]:
            previous = {} if answer.json is None else {"prevResult": answer.json}
            answer = self.run("ADD", plugin, previous)
            if answer.status:
                return answer
        self.result = answer.json
        return answer

    def delete(self, **environment: str) -> list[Answer]:
        """Run the chain backwards, all of it."""
        return [self._last("DEL", plugin, **environment) for plugin in reversed(self.network()["plugins"])]

    def check(self) -> list[Answer]:
        """Run the chain, all of it."""
        return [self._last("CHECK", plugin) for plugin in self.network()["plugins"]]

    def own(self, command: str, more: Mapping[str, Any] | None = None, /, **environment: str) -> Answer:
        """Run zproxy's plugin alone."""
        [plugin] = (each for each in self.network()["plugins"] if each["type"] == "zproxy-cni")
        return self._last(command, plugin, more, **environment)

    def _last(
        self,
        command: str,
        plugin: dict[str, Any],
        more: Mapping[str, Any] | None = None,
        /,
        **environment: str,
    ) -> Answer:
        previous = {} if self.result is None else {"prevResult": self.result}
        return self.run(command, plugin, previous | dict(more or {}), **environment)

    def run(self, command: str, plugin: dict[str, Any], more: Mapping[str, Any], **changed: str) -> Answer:
        """Run one plugin."""
        network = self.network()
        version = max([network["cniVersion"], *network.get("cniVersions", [])])
        conf = plugin | {"cniVersion": version, "name": network["name"]} | dict(more)
        variables = environment(
            command,
            self.pod,
            CNI_CONTAINERID=self.container,
            CNI_NETNS=self.netns,
            CNI_PATH=":".join(map(str, self.bins)),
        )
        [executable] = (path for path in (bin_ / plugin["type"] for bin_ in self.bins) if path.exists())
        done = subprocess.run(
            [executable],
            env={"PATH": os.environ["PATH"]} | variables | changed,
            input=json.dumps(conf),
            capture_output=True,
            text=True,
            timeout=30,
        )
        return Answer(done.returncode, done.stdout, done.stderr)
