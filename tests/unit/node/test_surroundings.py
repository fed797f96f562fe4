"""The daemon's own namespaces, where it is started in a container's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zproxy.errors import RequirementError
from zproxy.node.surroundings import join_cgroups_of_node, make_writable
from zproxy.steering.cgroups import root_cgroup

ROOT = Path(__file__).parents[3]


def proc(tmp_path: Path, membership: str) -> Path:
    (tmp_path / "1" / "ns").mkdir(parents=True)
    (tmp_path / "1" / "cgroup").write_text(membership)
    return tmp_path


@pytest.mark.parametrize("membership", ["0::/\n", "0::/init.scope\n", "4:memory:/../x\n"])
def test_in_the_nodes_cgroup_namespace_nothing_is_joined(tmp_path: Path, membership: str) -> None:
    assert join_cgroups_of_node(proc(tmp_path, membership)) is False


def test_without_a_process_to_join_by_it_is_a_sentence(tmp_path: Path) -> None:
    found = proc(tmp_path, "0::/../../init.scope\n")
    for pid in ("self", "7"):
        (found / pid / "ns").mkdir(parents=True)
        (found / pid / "ns" / "cgroup").write_text("")  # no namespace: setns refuses it
    with pytest.raises(RequirementError, match="finds no process to join the node's by"):
        join_cgroups_of_node(found)


def test_what_is_writable_is_left_alone(tmp_path: Path) -> None:
    assert make_writable(tmp_path) is False


def in_namespaces(script: str, *namespaces: str) -> str:
    """Run shell commands in namespaces of their own, mounts private; `$PY` is this interpreter."""
    command = ["unshare", "--mount", *namespaces, "sh", "-euc", script]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PY": sys.executable}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
def test_a_read_only_mount_becomes_writable_and_keeps_its_flags() -> None:
    said = in_namespaces(
        """
        mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys
        "$PY" -c 'from zproxy.node.surroundings import *
print(make_writable(PROC_SYS), make_writable(PROC_SYS))
print([line.split()[5] for line in open("/proc/self/mountinfo") if line.split()[4] == "/proc/sys"][-1])'
        """
    )
    assert said.split("\n")[0] == "True False"
    assert set(said.split("\n")[1].split(",")) >= {"rw", "nosuid", "nodev", "noexec"}


@pytest.mark.root
def test_what_may_not_be_mounted_is_a_sentence() -> None:
    said = in_namespaces(
        """
        mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys
        setpriv --bounding-set -sys_admin "$PY" -c 'from zproxy.node.surroundings import *
try: make_writable(PROC_SYS)
except RequirementError as error: print(error)'
        """
    )
    assert "/proc/sys is read-only and cannot be made writable: Operation not permitted" in said


@pytest.mark.root
def test_from_a_cgroup_namespace_of_its_own_it_comes_back_to_the_nodes() -> None:
    """Where all processes are at the root of cgroup v2, process 1 is inside of every namespace made there."""
    part = root_cgroup() / f"zpt-{os.getpid()}"
    part.mkdir()
    try:
        said = in_namespaces(
            f"""
            echo $$ >{part}/cgroup.procs
            unshare --cgroup "$PY" -c 'from zproxy.node.surroundings import *
print(join_cgroups_of_node(), open("/proc/self/cgroup").read().splitlines()[-1], join_cgroups_of_node())'
            """
        )
    finally:
        part.rmdir()
    assert said == f"True 0::/{part.name} False\n"
