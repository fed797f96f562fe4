"""Where hooks hang: the true root of cgroup v2, and this process's own cgroup."""

import os
from pathlib import Path

import pytest

from zproxy.errors import ConfigError, RequirementError
from zproxy.steering.cgroups import ROOT_ID, given_root, own_cgroup, root_cgroup


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "mounts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.root
def test_the_machines_root_is_found() -> None:
    root = root_cgroup()
    assert root.stat().st_ino == ROOT_ID
    assert (root / "cgroup.procs").exists()


def test_no_cgroup2_says_how_to_mount_it(tmp_path: Path) -> None:
    mounts = table(tmp_path, "proc /proc proc rw 0 0", f"cgroup {tmp_path} cgroup rw,cpu 0 0")
    with pytest.raises(RequirementError, match="mount -t cgroup2"):
        root_cgroup(mounts)


def test_a_containers_subtree_is_no_root(tmp_path: Path) -> None:
    mounts = table(tmp_path, f"cgroup2 {tmp_path} cgroup2 rw 0 0")
    with pytest.raises(RequirementError, match="a container's own subtree"):
        root_cgroup(mounts)


def test_the_own_cgroup_is_the_v2_line(tmp_path: Path) -> None:
    (tmp_path / "system.slice" / "zproxy.service").mkdir(parents=True)
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/elsewhere\n0::/system.slice/zproxy.service\n")
    assert own_cgroup(tmp_path, membership) == tmp_path / "system.slice" / "zproxy.service"


def test_the_root_can_be_the_own_cgroup(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/\n")
    assert own_cgroup(tmp_path, membership) == tmp_path


@pytest.mark.parametrize(
    ("text", "why"), [("0::/gone\n", "is not below"), ("4:memory:/\n", "in no cgroup v2")]
)
def test_a_cgroup_out_of_reach_is_a_requirement(tmp_path: Path, text: str, why: str) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text(text)
    with pytest.raises(RequirementError, match=why):
        own_cgroup(tmp_path, membership)


def test_what_is_given_as_the_root_must_be_a_cgroup(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--cgroup-root {tmp_path} is no directory of the cgroup v2"):
        given_root(tmp_path)


@pytest.mark.root
def test_a_part_of_the_hierarchy_may_be_given_as_the_root() -> None:
    part = root_cgroup() / f"zpt-{os.getpid()}"
    part.mkdir()
    try:
        assert given_root(part) == part
        with pytest.raises(ConfigError):
            given_root(part / "cgroup.procs")
    finally:
        part.rmdir()
