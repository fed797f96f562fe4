"""The installed bpftool beside `zproxy bpf`: both are run and must say and do the same."""

import shutil
import subprocess
import time
from typing import NamedTuple

from click.testing import CliRunner
from zproxy_cli.main import zproxy

VIEWS = [(), ("-j",), ("-p",)]
"""bpftool's three forms."""
ALL_VIEWS = [*VIEWS, ("-f",), ("-jf",), ("-p", "-f")]
"""The same, with and without pins."""
PATIENCE_S = 10.0


class Outcome(NamedTuple):
    """What a command did."""

    stdout: bytes
    stderr: str
    status: int


def bpftool(*words: str) -> Outcome:
    """Run the installed bpftool."""
    assert shutil.which("bpftool"), "bpftool is not installed, and these tests compare with it"
    done = subprocess.run(["bpftool", *words], capture_output=True, timeout=30)
    return Outcome(done.stdout, done.stderr.decode(), done.returncode)


def ours(*words: str) -> Outcome:
    """Run `zproxy bpf` in this process and thread."""
    result = CliRunner().invoke(zproxy, ["bpf", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.stdout_bytes, result.stderr, result.exit_code)


def assert_same(*words: str) -> Outcome:
    """Compare, and return what both said."""
    mine, theirs = ours(*words), bpftool(*words)
    assert mine == theirs, f"{mine}\nbut bpftool: {theirs}"
    return mine


def until_same(*words: str) -> Outcome:
    """Compare what others change as well: a map or a pin made in between, a counter, a clock's second.

    Looks again until both say the same; what never becomes the same fails after PATIENCE_S.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        mine, theirs = ours(*words), bpftool(*words)
        if mine == theirs or time.monotonic() > deadline:
            assert mine == theirs, f"{mine}\nbut bpftool: {theirs}"
            return mine
