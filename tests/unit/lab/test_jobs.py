"""Jobs: started in a namespace, found by their command line, stopped for certain."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespace
from zproxy.lab import jobs
from zproxy.lab.jobs import Job
from zproxy.net.netns import Netns

pytestmark = pytest.mark.root


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def job(pod: Namespace, tmp_path: Path) -> Iterator[Job]:
    log = tmp_path / "app.log"
    job = Job("HTTP app", pod.name, "zproxy.lab.app", ("--port", "8080", "--log", str(log)), log)
    yield job
    jobs.stop([job])


def _wait_until_gone(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 5)[0], f"{pid} is still there"
    finally:
        os.close(fd)


def test_a_job_runs_in_its_namespace_and_is_found(job: Job, pod: Namespace) -> None:
    pid = jobs.start(job)
    assert jobs.running(job) == (pid,)
    with Netns.of_pid(pid) as where:
        assert where.key == pod.netns.key
    assert os.getsid(pid) == pid


def test_stop_ends_it_and_says_so(job: Job) -> None:
    pid = jobs.start(job)
    assert jobs.stop([job]) == [f"HTTP app, pid {pid}"]
    assert jobs.running(job) == ()
    assert jobs.stop([job]) == []


def test_a_signal_reaches_the_job(job: Job) -> None:
    pid = jobs.start(job)
    jobs.send(job, signal.SIGKILL)
    _wait_until_gone(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    jobs.send(job, signal.SIGKILL)


def test_a_process_with_another_command_line_is_left_alone(job: Job, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()", *job.argv]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as bystander:
        assert jobs.running(job) == ()
        assert jobs.stop([job]) == []
        assert bystander.poll() is None
        bystander.communicate()


def test_what_does_not_answer_sigterm_is_killed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_STOP_S", 0.3)
    pid = jobs.start(job)
    os.kill(pid, signal.SIGSTOP)
    assert jobs.stop([job]) == [f"HTTP app, pid {pid}"]
    _wait_until_gone(pid)


def test_the_last_words_say_why_it_ended(job: Job) -> None:
    broken = job._replace(arguments=("--port", "none", "--log", str(job.log)))
    pid = jobs.start(broken)
    _wait_until_gone(pid)
    os.waitpid(pid, 0)
    assert "invalid int value: 'none'" in jobs.last_words(broken)


def test_a_job_without_a_log_has_no_last_words(job: Job) -> None:
    assert jobs.last_words(job) == "(no output)"
