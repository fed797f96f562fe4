"""The documents are true: what they name exists, what they show runs."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

import pytest
from zproxy_cli.main import zproxy

from tests.support import documents
from zproxy.model import ports
from zproxy.model.policy import Action, PolicyScope
from zproxy.model.service import BalancerMode, HealthPolicy, IpFamilies, Scope, SessionAffinity, Visibility
from zproxy.model.workload import AppProtocol, NetworkMode, Protocol, Status
from zproxy.sources import file as mesh_file
from zproxy.sources import policies, services, vocabulary, workloads

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted((ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")))
TOPS = ("bpf", "cli", "docs", "tests", "zproxy", "vagrant", ".ci")
PORTS = {value for name, value in vars(ports).items() if name.isupper() and isinstance(value, int)}


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def marked(mark: str) -> Sequence[object]:
    """Return the documents that have blocks with this mark, as parameters: the text of all of them."""
    found = {
        document: [block.text for block in documents.blocks(document.read_text()) if block.mark == mark]
        for document in DOCUMENTS
    }
    return [
        pytest.param("\n".join(texts), id=name_of(document)) for document, texts in found.items() if texts
    ]


@every_document
def test_the_make_targets_that_are_named_exist(document: Path) -> None:
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(documents.targets(document.read_text())) - there == set()


@every_document
def test_the_commands_that_are_named_exist(document: Path) -> None:
    faults = (documents.fault_of_command(words, zproxy) for words in documents.commands(document.read_text()))
    assert [fault for fault in faults if fault] == []


@every_document
def test_the_paths_and_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    wanted = [ROOT / path for path in documents.paths(text, TOPS)]
    wanted += [document.parent / link for link in documents.links(text)]
    assert [path for path in wanted if not path.exists()] == []


@every_document
def test_the_mesh_ports_that_are_named_are_ours(document: Path) -> None:
    named = {int(number) for number in re.findall(r"(?<![\d.])15\d{3}(?![\d.]\d)", document.read_text())}
    assert named - PORTS == set()


def test_the_port_table_has_every_port() -> None:
    table = {int(cells[0]) for cells in documents.rows(ROOT / "docs" / "architecture.md", "## Ports")}
    assert table == PORTS


@pytest.mark.parametrize("text", marked("mesh"))
def test_a_mesh_that_is_shown_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(text)
    assert mesh_file.load(path).workloads


MESH_TABLES = {
    "Workloads": workloads.KEYS,
    "Services": services.KEYS,
    "Load balancing": services.BALANCER_KEYS,
    "Waypoints and gateways": vocabulary.GATEWAY_KEYS,
    "Policies": policies.KEYS,
    "Matches": tuple(policies.FIELDS),
}


@pytest.mark.parametrize("heading", MESH_TABLES)
def test_the_mesh_document_has_a_row_for_every_key(heading: str) -> None:
    rows = documents.rows(ROOT / "docs" / "mesh.md", f"## {heading}")
    keys = [key.strip("`") for cells in rows for key in cells[0].split(", ")]
    assert sorted(keys) == sorted(MESH_TABLES[heading])


@pytest.mark.parametrize(
    ("heading", "key", "words"),
    [
        ("Workloads", "protocol", Protocol),
        ("Workloads", "status", Status),
        ("Workloads", "networkMode", NetworkMode),
        ("Workloads", "applicationTunnel", AppProtocol),
        ("Services", "ipFamilies", IpFamilies),
        ("Services", "visibility", Visibility),
        ("Load balancing", "routingPreferences", Scope),
        ("Load balancing", "mode", BalancerMode),
        ("Load balancing", "healthPolicy", HealthPolicy),
        ("Load balancing", "sessionAffinity", SessionAffinity),
        ("Policies", "scope", PolicyScope),
        ("Policies", "action", Action),
    ],
)
def test_the_mesh_document_has_every_word_that_a_key_may_have(
    heading: str, key: str, words: type[Enum]
) -> None:
    rows = documents.rows(ROOT / "docs" / "mesh.md", f"## {heading}")
    (cells,) = [cells for cells in rows if cells[0] == f"`{key}`"]
    assert {word.value for word in words if word.value} <= set(re.findall(r"`(\w+)`", cells[1]))


@pytest.fixture
def lab_is_taken_down() -> Iterator[None]:
    yield
    run("zproxy lab down")


@pytest.mark.root
@pytest.mark.usefixtures("lab_is_taken_down")
@pytest.mark.parametrize("script", marked("run-root"))
def test_what_is_shown_runs_as_root(script: str) -> None:
    run(script)


def run(script: str) -> None:
    """Run a script as a reader would, in the project's directory, up to the first command that fails."""
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\nsays:\n{done.stdout}{done.stderr}"
