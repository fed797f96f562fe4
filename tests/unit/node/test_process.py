"""The daemon as a process: its name, its descriptors, and names that a node may have."""

import resource
import subprocess
import sys
from pathlib import Path

from zproxy.config import RUN_ROOT
from zproxy.node import process

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
