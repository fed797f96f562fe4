"""A whole file: all of it, or a sentence and nothing."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.meshes import world
from tests.support import records
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from zproxy.errors import ConfigError
from zproxy.model.policy import Authorization
from zproxy.model.service import Service
from zproxy.model.workload import Workload
from zproxy.sources import file
from zproxy.sources.file import load, read
from zproxy.state.store import Records

CLIENT = workload("demo/client", "10.244.1.5", "fd00:244:1::5", node="node-a")
SERVER = workload("demo/server", "10.244.2.5", node="node-b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.yaml"


def test_a_file_becomes_a_mesh(path: Path) -> None:
    path.write_text(yaml_of(CLIENT, SERVER))
    known = load(path)
    assert known.workloads == (CLIENT, SERVER)
    assert known.by_ip("fd00:244:1::5") == CLIENT
    assert known.by_pod("demo/server") == SERVER


@pytest.mark.parametrize(
    "text",
    [
        "workloads: []",
        "workloads: []\npolicies: []\nservices: []\n",
        "\ufeffworkloads: []\n",
        "workloads: []\r\n",
        '{"workloads": []}',
        "---\nworkloads: []\n...\n",
    ],
    ids=["short", "empty others", "byte order mark", "CRLF", "JSON", "document markers"],
)
def test_an_explicitly_empty_mesh_is_a_mesh(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
    assert load(path).workloads == ()


A = "- {uid: a, name: a, namespace: ns, workloadIps: [10.0.0.1]}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: the file is empty; it needs a top-level list `workloads:`"),
        ("# only a comment\n", ":1: the file is empty"),
        ("---\n", ":1: the file is empty"),
        ("{}", ":1: workloads: missing; the file needs a top-level list `workloads:`"),
        ("services: []", ":1: workloads: missing"),
        ("- uid: a\n", ":1: a list is not a mapping"),
        ("workloads:\n", ":1: workloads: an empty value is not a list"),
        ("workloads: {a: b}\n", ":1: workloads: a mapping is not a list"),
        ("workload: []\n", ":1: workload: unknown key; did you mean 'workloads'?"),
        (
            "workloads: []\nnodes: []\n",
            ":2: nodes: unknown key; the keys here are workloads, services, policies",
        ),
        ("workloads: []\npolicies:\n- name: deny\n", ":3: policies[0].namespace: missing"),
        ("workloads: []\nservices:\n- name: x\n", ":3: services[0].namespace: missing"),
        ("workloads: []\nservices: {}\n", ":2: services: a mapping is not a list"),
        ("workloads: []\npolicies: ~\n", ":2: policies: '~' is not a list"),
        (
            "workloads: []\nservices:\n" + "- {name: x, namespace: ns, hostname: x.test}\n" * 2,
            ":4: services[1].hostname: 'ns/x.test' is already that of line 3; each needs its own",
        ),
        (
            "workloads: []\npolicies:\n" + "- {name: x, namespace: ns, scope: Global, action: Deny}\n" * 2,
            ":4: policies[1].name: 'ns/x' is already that of line 3; each needs its own",
        ),
        ("workloads:\n- hello\n", ":2: workloads[0]: 'hello' is not a mapping"),
        ("workloads:\n" + A + "-\n", ":3: workloads[1]: an empty value is not a mapping"),
        (
            "workloads:\n" + A + "- name: b\n  namespace: ns\n  uid: a\n",
            ":5: workloads[1].uid: 'a' is already that of line 2; each needs its own",
        ),
        (
            "workloads:\n- uid: x\n  namespace: ns\n  name: a\n- uid: y\n  namespace: ns\n  name: a\n",
            ":7: workloads[1].name: 'ns/a' is already that of line 4",
        ),
        (
            "workloads:\n"
            + A
            + "- uid: b\n  name: b\n  namespace: ns\n  workloadIps:\n  - 10.0.0.9\n  - 10.0.0.1\n",
            ":6: workloads[1].workloadIps: '10.0.0.1' is already that of line 2; each needs its own",
        ),
        (
            "workloads:\n"
            + "".join(
                f"- {{uid: {n}, name: {n}, namespace: ns, network: net1, workloadIps: ['{ip}']}}\n"
                for n, ip in (("a", "fd00::1"), ("b", "fd00:0::1"))
            ),
            ":3: workloads[1].workloadIps: 'fd00::1' is already that of line 2 on network 'net1'",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_place(path: Path, text: str, says: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert f"{path}{says}" in str(caught.value)
    assert str(caught.value).isprintable()


def test_one_address_on_two_networks_is_no_duplicate(path: Path) -> None:
    path.write_text(
        "workloads:\n"
        "- {uid: a, name: a, namespace: ns, network: net1, workloadIps: [10.0.0.1]}\n"
        "- {uid: b, name: b, namespace: ns, network: net2, workloadIps: [10.0.0.1]}\n"
    )
    assert len(load(path).workloads) == 2


def test_endpoints_of_a_service_are_found_by_it(path: Path) -> None:
    path.write_text(
        "services:\n- {name: web, namespace: demo, hostname: web.test, endpoints: {a: {port: {80: 8080}}}}\n"
        "workloads:\n" + A
    )
    known = load(path)
    (pod,) = known.endpoints("demo/web.test")
    assert (pod.uid, pod.service_on(8080)) == ("a", "demo/web.test")
    path.write_text(path.read_text().replace("{a:", "{b:"))
    with pytest.raises(
        ConfigError, match=r":2: services\[0\]\.endpoints\.b: there is no workload of this uid"
    ):
        load(path)


def test_pauses_come_often_while_a_file_is_read(path: Path) -> None:
    pauses: list[None] = []
    path.write_text(yaml_of(*(workload(f"demo/pod{number}", f"10.0.0.{number}") for number in range(50))))
    assert len(read(path, lambda: pauses.append(None)).workloads) == 50
    assert len(pauses) > 50 + 20


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(
        ConfigError, match="cannot be read: No such file or directory; check the path"
    ) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a regular file; name the mesh's YAML file itself"):
        load(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is not a regular file"):
        load(path)


def test_a_large_file_is_refused_unread(path: Path) -> None:
    with path.open("wb") as sparse:
        sparse.truncate(file.MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="is larger than 64 MiB"):
        load(path)


def test_other_encodings_are_refused_with_the_line(path: Path) -> None:
    path.write_bytes(b"workloads: []\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"mesh\.yaml:2: not UTF-8 text; save the file as UTF-8"):
        load(path)


@given(
    st.lists(records.workloads(), max_size=3),
    st.lists(records.services, max_size=3, unique_by=lambda each: each.key),
    st.lists(records.policies, max_size=3, unique_by=lambda each: each.key),
)
def test_what_the_builder_writes_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    workloads: list[Workload],
    services: list[Service],
    policies: list[Authorization],
) -> None:
    claimed: set[object] = set()
    fitting = []
    for each in workloads:
        claims = {each.pod, *((each.network, ip) for ip in each.workload_ips)}
        if not claims & claimed:
            claimed |= claims
            fitting.append(each)
    target = tmp_path_factory.getbasetemp() / "generated.yaml"
    target.write_text(yaml_of(*fitting, *services, *policies))
    assert read(target) == Records(fitting, services, policies)


def test_whole_meshes_are_read_as_they_were_written(path: Path) -> None:
    """Those that routes and policies are tried on, but for what no file can say."""
    for seed in range(200):
        made = world(random.Random(seed)).mesh
        policies = [replace(each, defect="") for each in made.policies]
        workloads = [
            replace(each, service_ports=tuple(port for port in each.service_ports if port.target_port))
            for each in made.workloads
            if each.workload_ips or each.hostname
        ]
        path.write_text(yaml_of(*workloads, *made.services, *policies))
        known = load(path)
        assert list(known.workloads) == workloads
        assert known.services == made.services
        assert list(known.policies) == policies
