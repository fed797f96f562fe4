"""The manifests of vagrant/: valid by the API's own schemas, whole, and saying what the code has."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from zproxy_cli import pods, run

from tests.support import manifests
from tests.support.manifests import MANIFESTS, ROOT, daemon_container, daemon_pod, files, kustomizations, load
from zproxy.config import BPFFS, RUN_ROOT, STATE_ROOT
from zproxy.model.capabilities import NEEDED
from zproxy.net.netns import NAMED

SCHEMAS = ("1.31", "1.33", "1.35")
"""appArmorProfile came with 1.30; the demo's cluster has 1.33."""


def name_of(path: Path) -> str:
    return str(path.relative_to(MANIFESTS))


every_file = pytest.mark.parametrize("path", files(), ids=name_of)


@every_file
@pytest.mark.parametrize("version", SCHEMAS)
def test_each_object_is_valid_and_has_no_unknown_field(path: Path, version: str) -> None:
    for document in load(path):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spec": {"tmplate": {}}}, "tmplate"),
        ({"spec": {"minReadySeconds": "5"}}, "not of type"),
    ],
)
def test_a_misspelt_or_mistyped_field_would_be_found(change: dict[str, Any], complaint: str) -> None:
    broken = manifests.named("DaemonSet", "zproxy")
    broken["spec"].update(change["spec"])
    with pytest.raises(kubernetes_validate.ValidationError, match=complaint):
        kubernetes_validate.validate(broken, SCHEMAS[0], strict=True)


@every_file
def test_a_file_belongs_to_the_kustomization_beside_it(path: Path) -> None:
    assert path.name in yaml.safe_load((path.parent / "kustomization.yaml").read_text())["resources"]


@pytest.mark.parametrize("path", kustomizations(), ids=name_of)
def test_what_a_kustomization_names_is_there(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert [name for name in content["resources"] if not (path.parent / name).exists()] == []
    for patch in content.get("patches", ()):
        target = patch["target"]
        found = manifests.named(target["kind"], target["name"])
        for step in yaml.safe_load(patch["patch"]):
            assert step["op"] == "add"
            *parents, last = step["path"].strip("/").split("/")
            at: Any = found
            for part in parents:
                at = at[int(part)] if isinstance(at, list) else at[part]
            assert isinstance(at, list)
            assert last == "-"


def test_everything_namespaced_is_in_a_namespace_that_is_made() -> None:
    made = {each["metadata"]["name"] for each in manifests.objects() if each["kind"] == "Namespace"}
    wanted = {
        each["metadata"]["namespace"] for each in manifests.objects() if "namespace" in each["metadata"]
    }
    assert wanted == made


def test_selectors_select_the_pods_beside_them() -> None:
    for each in manifests.objects():
        if each["kind"] in ("DaemonSet", "Deployment"):
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_every_mount_has_its_volume_and_every_volume_its_mount() -> None:
    volumes = [each["name"] for each in daemon_pod()["volumes"]]
    assert volumes == [each["name"] for each in daemon_container()["volumeMounts"]]


def test_the_daemons_own_places_are_mounted_where_it_looks() -> None:
    mounted = {each["mountPath"] for each in daemon_container()["volumeMounts"]}
    assert {str(path) for path in (BPFFS, RUN_ROOT, STATE_ROOT, NAMED)} <= mounted


def test_the_daemon_has_what_it_needs_and_nothing_else() -> None:
    security = daemon_container()["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert sorted(f"CAP_{name}" for name in security["capabilities"]["add"]) == sorted(
        each.name for each in NEEDED
    )
    assert security["readOnlyRootFilesystem"] is True
    assert security["privileged"] is False


def test_every_variable_that_an_option_takes_is_set() -> None:
    container = daemon_container()
    used = set(re.findall(r"\$\((\w+)\)", json.dumps(container["args"])))
    of_fields = {each["name"] for each in container["env"]}
    (config,) = (source["configMapRef"]["name"] for source in container["envFrom"])
    of_config = set(manifests.named("ConfigMap", config)["data"])
    assert used - of_fields == of_config


def test_rights_are_to_look_and_to_patch_the_status_of_pods() -> None:
    rules = manifests.named("ClusterRole", "zproxy")["rules"]
    rights = {(name, verb) for rule in rules for name in rule["resources"] for verb in rule["verbs"]}
    looked_at = ("pods", "namespaces", "nodes", "services", "endpointslices")
    assert rights == {(name, verb) for name in looked_at for verb in ("list", "watch")} | {
        ("pods/status", "patch")
    }


def test_the_pods_of_the_demo_are_on_the_two_workers_of_the_cluster() -> None:
    cluster = yaml.safe_load((ROOT / "vagrant" / "kind.yaml").read_text())
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker"]
    where = [
        manifests.named("Deployment", name)["spec"]["template"]["spec"]["nodeSelector"][
            "kubernetes.io/hostname"
        ]
        for name in ("client", "server")
    ]
    assert where == [f"{cluster['name']}-worker", f"{cluster['name']}-worker2"]


def test_the_cas_directory_is_one_for_all_nodes_of_the_cluster() -> None:
    cluster = yaml.safe_load((ROOT / "vagrant" / "kind.yaml").read_text())
    shared = [mount for node in cluster["nodes"] for mount in node["extraMounts"]]
    assert {mount["containerPath"] for mount in shared} == {str(STATE_ROOT)}
    assert len({mount["hostPath"] for mount in shared}) == 1


def test_the_daemon_has_the_options_that_the_manifests_give_it() -> None:
    patches = yaml.safe_load((MANIFESTS / "demo" / "kustomization.yaml").read_text())["patches"]
    added = [step["value"] for patch in patches for step in yaml.safe_load(patch["patch"])]
    given = {word.partition("=")[0] for word in [*daemon_container()["args"], *added]}
    assert given - {name for option in run.command.params for name in option.opts} == set()


def test_the_probes_ask_a_command_that_there_is() -> None:
    for probe in ("startupProbe", "readinessProbe"):
        assert daemon_container()[probe]["exec"]["command"] == ["zproxy", "pods"]
    assert pods.command.name == "pods"
