"""Programs inside a pod's namespace."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.netns import namespace, pair
from zproxy.errors import RequirementError, ZproxyError
from zproxy.lab import inside

pytestmark = pytest.mark.root


def test_a_program_sees_the_pods_network_and_our_files(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("same files")
    with pair() as (client, _):
        status, out, error = inside.output(
            client.netns, ["sh", "-c", f"cat {note}; ip -br addr; echo oops >&2; exit 3"]
        )
    assert (status, error) == (3, b"oops\n")
    assert out.startswith(b"same files")
    assert client.ip4.encode() in out


def test_a_program_that_is_not_installed_is_named() -> None:
    with namespace() as pod, pytest.raises(RequirementError, match="zpt-nothing is not installed"):
        inside.output(pod.netns, ["zpt-nothing"])


def test_a_program_that_hangs_is_killed() -> None:
    with namespace() as pod, pytest.raises(ZproxyError, match="did not end within 0 s"):
        inside.output(pod.netns, ["sleep", "60"], timeout_s=0.2)


def test_a_module_of_ours_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zproxy.py").write_text("raise SystemExit('the wrong zproxy')")
    monkeypatch.chdir(tmp_path)
    argv = inside.module("zproxy.lab.app", "--help")
    with namespace() as pod, inside.start(pod.netns, argv, env=inside.environment()) as process:
        out, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (0, b"")
    assert b"The HTTP app of the lab" in out


def test_become_runs_the_program_in_this_process_and_passes_its_status() -> None:
    with pair() as (client, _):
        code = (
            "from zproxy.lab.inside import become; from zproxy.net.netns import Netns; "
            f"become(Netns.named({client.name!r}), ['sh', '-c', 'ip -br addr; echo pid $$; exit 7'])"
        )
        read, write = os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            inside.environment(),
            file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
        )
        os.close(write)
        with os.fdopen(read) as output:
            text = output.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert client.ip4 in text
        assert f"pid {pid}" in text


def test_a_command_that_does_not_exist_is_one_sentence() -> None:
    with namespace() as pod, pytest.raises(ZproxyError, match="zpt-nothing cannot be started"):
        inside.become(pod.netns, ["zpt-nothing"])
