"""A node daemon in a container as the DaemonSet of vagrant/manifests/ describes it, run by runc.

What Kubernetes and a runtime make of the manifest is made of it here: capabilities, a root that is read-only,
/proc/sys read-only, namespaces, mounts with their propagation. The image is this machine's own /usr and this
checkout. A directory that a test must not share with the machine's own is replaced (`REPLACED`).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.manifests import ROOT, daemon_container, daemon_pod
from tests.support.netns import PREFIX
from tests.support.nodes import WAIT_S, Node

REPLACED: Final = frozenset({"/var/lib/zproxy", "/run/containerd"})
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_MASKED: Final = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
_PROPAGATION: Final = {"HostToContainer": "rslave"}


def granted() -> list[str]:
    """Return the capabilities that the manifest adds, as capabilities(7) writes them."""
    return [f"CAP_{name}" for name in daemon_container()["securityContext"]["capabilities"]["add"]]


class BoxedNode(Node):
    """`zproxy run` in such a container. `capabilities` may be changed before a start."""

    def __init__(self, name: str, directory: Path, ca: Path) -> None:
        super().__init__(name, directory, ca)
        self.capabilities = granted()
        self._directory = directory
        self._bundle = directory / "bundle"

    def launch(self) -> None:
        """Start the container."""
        self._write_bundle()
        command = ["runc", "run", "--bundle", str(self._bundle), self.name]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def clean(self) -> None:
        """End the container and remove everything of its name."""
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, timeout=WAIT_S)
        if self.process is not None:
            self.process.wait(WAIT_S)
            self.process = None
        super().clean()

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `kubectl exec` does."""
        command = ["runc", "exec", self.name, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def _write_bundle(self) -> None:
        root = self._bundle / "rootfs"
        for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "run", str(ROOT), str(self._directory)):
            (root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if not (root / name).is_symlink():
                (root / name).symlink_to(f"usr/{name}")
        for mount in self._mounts():
            (root / mount["destination"].lstrip("/")).mkdir(parents=True, exist_ok=True)
        (self._bundle / "config.json").write_text(json.dumps(self._config()))

    def _config(self) -> dict[str, Any]:
        pod, security = daemon_pod(), daemon_container()["securityContext"]
        kinds = ["mount", "ipc", "uts", "cgroup"]
        kinds += [] if pod.get("hostPID") else ["pid"]
        kinds += [] if pod.get("hostNetwork") else ["network"]
        sets = ("bounding", "effective", "permitted")
        command = [sys.executable, "-m", "zproxy", "run", "--node", self.name]
        command += ["--config", str(self.config), "--ca-dir", str(self.ca), *self.options]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
            "process": {
                "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
                "args": command,
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": str(ROOT),
                "capabilities": dict.fromkeys(sets, self.capabilities),
                "noNewPrivileges": not security["allowPrivilegeEscalation"],
            },
            "mounts": [*self._system(), *self._mounts(), *self._files()],
            "linux": {
                "cgroupsPath": f"/{self.name}",
                "namespaces": [{"type": kind} for kind in kinds],
                "readonlyPaths": _READ_ONLY,
                "maskedPaths": _MASKED,
            },
        }

    def _system(self) -> Iterator[dict[str, Any]]:
        yield {"destination": "/proc", "type": "proc", "source": "proc"}
        yield {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
        options = ["nosuid", "noexec", "nodev", "ro"]
        yield {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options}
        for path in ("/usr", "/etc"):
            yield _bind(path, path, "ro")

    def _files(self) -> list[dict[str, Any]]:
        """Return what stands in for image and ConfigMap; it may lie below what the manifest mounts."""
        return [_bind(str(ROOT), str(ROOT), "ro"), _bind(str(self._directory), str(self._directory), "rw")]

    def _mounts(self) -> list[dict[str, Any]]:
        """Return what the manifest mounts."""
        volumes = {volume["name"]: volume for volume in daemon_pod()["volumes"]}
        return [self._mount(each, volumes[each["name"]]) for each in daemon_container()["volumeMounts"]]

    def _mount(self, wanted: dict[str, Any], volume: dict[str, Any]) -> dict[str, Any]:
        access = "ro" if wanted.get("readOnly") else "rw"
        propagation = _PROPAGATION.get(wanted.get("mountPropagation", ""), "rprivate")
        if "hostPath" not in volume:
            return {"destination": wanted["mountPath"], "type": "tmpfs", "source": "tmpfs"}
        source = Path(volume["hostPath"]["path"])
        if str(source) in REPLACED:
            source = self._directory / "replaced" / source.name
            source.mkdir(parents=True, exist_ok=True)
        elif volume["hostPath"]["type"] == "DirectoryOrCreate":
            source.mkdir(parents=True, exist_ok=True)
        return _bind(str(source), wanted["mountPath"], access, propagation)


def _bind(source: str, destination: str, access: str, propagation: str = "rprivate") -> dict[str, Any]:
    options = ["rbind", access, propagation]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


@contextmanager
def boxed_node(label: str, directory: Path, ca: Path) -> Iterator[BoxedNode]:
    """Make a node whose daemon will be in a container; it is removed afterwards."""
    node = BoxedNode(f"{PREFIX}{label}", directory, ca)
    try:
        yield node
    finally:
        node.clean()
