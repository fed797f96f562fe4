"""The lab's mesh file with policies and without; how daemons take it, tests/unit/lab/test_policy.py sees."""

from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.lab import mesh_file
from zproxy.lab.layout import make_layout
from zproxy.lab.lifecycle import Lab
from zproxy.lab.mesh import mesh_text
from zproxy.lab.mesh_file import Policy
from zproxy.model.policy import Action, PolicyScope
from zproxy.sources import file

PRINCIPAL = "cluster.local/ns/demo/sa/client"
POLICIES = (Policy("allow-it", "Allow", PRINCIPAL), Policy("deny-it", "Deny", PRINCIPAL))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab without daemons: nobody is told."""
    made = Lab(make_layout("zpt-none-"), tmp_path)
    made.mesh.write_text(mesh_text(made.layout))
    return made


def test_the_daemon_reads_the_policies_that_were_put_there(lab: Lab) -> None:
    mesh_file.put(lab, mesh_file.with_policies(mesh_file.own_text(lab), POLICIES))
    found = sorted(file.load(lab.mesh).policies, key=lambda each: each.key)
    assert [each.key for each in found] == [policy.key for policy in POLICIES]
    assert [each.action for each in found] == [Action.ALLOW, Action.DENY]
    assert {each.scope for each in found} == {PolicyScope.NAMESPACE}
    assert [str(value) for value in found[0].rules[0][0][0].principals] == [
        str(value) for value in found[1].rules[0][0][0].principals
    ]
    assert PRINCIPAL in str(found[0].rules[0][0][0].principals)


def test_what_a_killed_run_left_is_no_part_of_the_file(lab: Lab) -> None:
    before = lab.mesh.read_text()
    mesh_file.put(lab, mesh_file.with_policies(before, POLICIES))
    assert lab.mesh.read_text() != before
    assert mesh_file.own_text(lab) == before
    assert mesh_file.with_policies(before, ()) == before


def test_the_file_is_replaced_in_one_step(lab: Lab) -> None:
    old = lab.mesh.stat().st_ino
    mesh_file.put(lab, "workloads: []\n")
    assert lab.mesh.stat().st_ino != old
    assert [path.name for path in lab.directory.iterdir()] == ["mesh.yaml"]


def test_policies_of_a_users_own_are_left_alone(lab: Lab) -> None:
    text = lab.mesh.read_text() + "policies: []\n"
    lab.mesh.write_text(text)
    with pytest.raises(ConfigError, match="has policies already"):
        mesh_file.own_text(lab)
    assert lab.mesh.read_text() == text
