"""A cluster and an enroller that are not there, for tests of what is between them."""

from collections.abc import Collection, Mapping
from typing import Any

from tests.support.kubeobjects import Object
from zproxy.errors import EnrollError
from zproxy.kube.controller import Found
from zproxy.kube.informer import ApiFailed, NotThere
from zproxy.kube.ledger import key_of
from zproxy.kube.objects import read_namespace, read_pod
from zproxy.kube.translate import Place, Snapshot

PATH = "/api/v1/namespaces/{}/pods/{}/status"


class World:
    """Stands for a Cluster, an Api, an Enroller and a FindSandboxes at once."""

    def __init__(self, node: str = "node-a") -> None:
        self.place = Place(node, "cluster.local")
        self.is_synced = True
        self.pods: dict[str, Object] = {}
        self.namespaces: dict[str, Object] = {}
        self.sandboxes: dict[str, Found] = {}
        """By uid."""
        self.enrolled: dict[str, tuple[Found, bool]] = {}
        """Where, and whether with DNS."""
        self.refusals: dict[str, str] = {}
        """What enrolling or unenrolling a pod fails with."""
        self.away = False
        """Whether the API server cannot be reached."""
        self.calls: list[str] = []

    def put(self, *items: Object) -> None:
        """Have pods and namespaces."""
        for item in items:
            where = self.pods if "spec" in item else self.namespaces
            where[key_of(item)] = item

    def snapshot(self) -> Snapshot:
        pods = {key: read_pod(item) for key, item in self.pods.items()}
        return Snapshot(
            pods, {key: read_namespace(item) for key, item in self.namespaces.items()}, {}, {}, {}
        )

    def annotation(self, key: str) -> str | None:
        """Return whether a pod is said to be in the mesh."""
        annotations = self.pods[key]["metadata"].get("annotations") or {}
        value = annotations.get("ambient.istio.io/redirection")
        return None if value is None else str(value)

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        _, _, _, _, namespace, _, name, _ = path.split("/")
        key = f"{namespace}/{name}"
        assert path == PATH.format(namespace, name)
        if self.away:
            raise ApiFailed("nobody there")
        if key not in self.pods or self.pods[key]["metadata"]["uid"] != body["metadata"]["uid"]:
            raise NotThere("gone")
        self.calls.append(f"patch {key}")
        annotations = self.pods[key]["metadata"].setdefault("annotations", {})
        for each, value in body["metadata"]["annotations"].items():
            annotations.pop(each, None) if value is None else annotations.update({each: value})

    async def find(self, uids: Collection[str]) -> dict[str, Found]:
        return {uid: self.sandboxes[uid] for uid in uids if uid in self.sandboxes}

    async def enroll(
        self,
        pod: str,
        netns: str | None = None,
        pid: int | None = None,
        service_account: str | None = None,
        options: dict[str, Any] | None = None,
        cgroup: str | None = None,
    ) -> dict[str, Any]:
        assert service_account is None
        self.calls.append(f"enroll {pod}")
        if pod in self.refusals:
            raise EnrollError(self.refusals[pod])
        self.enrolled[pod] = Found(pid, netns, cgroup), bool((options or {})["dns"])
        return {}

    async def unenroll(self, pod: str) -> dict[str, Any]:
        self.calls.append(f"unenroll {pod}")
        if pod in self.refusals:
            raise EnrollError(self.refusals[pod])
        del self.enrolled[pod]
        return {}

    def present(self) -> set[str]:
        return set(self.enrolled)
