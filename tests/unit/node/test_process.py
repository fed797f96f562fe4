"""The daemon as a process: its name, its descriptors, and names that a node may have."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zproxy.config import RUN_ROOT
from zproxy.errors import RequirementError
from zproxy.model.capabilities import NEEDED, SYS_ADMIN
from zproxy.node import process
from zproxy.node.present import Site
from zproxy.steering import probe

ROOT = Path(__file__).parents[3]


def test_the_longest_node_name_has_a_control_socket_at_its_real_place() -> None:
    assert len(str(RUN_ROOT / ("x" * process.MAX_NODE_NAME) / "control.sock")) <= 107


def test_the_process_is_shown_as_zproxy() -> None:
    code = (
        "from zproxy.node.process import name_process; name_process();"
        "print(open('/proc/self/comm').read(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "zproxy\n"


def test_the_daemon_takes_all_descriptors_that_it_may_have() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        process.raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_capability_that_is_missing_ends_the_start_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    held = sum(1 << each.bit for each in NEEDED)
    monkeypatch.setattr(probe, "capabilities", lambda: held)
    process.require_capabilities()
    monkeypatch.setattr(probe, "capabilities", lambda: held & ~(1 << SYS_ADMIN.bit))
    with pytest.raises(RequirementError, match="CAP_SYS_ADMIN is missing"):
        process.require_capabilities()


def test_word_of_the_cgroup_root_is_left_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RUN_ROOT", tmp_path)
    site = Site("here", run_root=tmp_path)
    site.run.mkdir()
    found = []
    for given in (None, Path("/sys/fs/cgroup"), None):
        process.note_cgroup_root("here", given)
        found.append(site.cgroup_root)
    assert found == [None, Path("/sys/fs/cgroup"), None]
