"""Programs inside a pod's network namespace: the same file system and user, another network.

`become` brings the pod's own resolv.conf along as well.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import zproxy
from zproxy.errors import RequirementError, ZproxyError
from zproxy.lab import pod_files
from zproxy.net.netns import Netns

_PACKAGE_ROOT: Final = str(Path(zproxy.__file__).parent.parent)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module of ours; -P keeps the current directory out of imports."""
    return sys.executable, "-P", "-m", name, *arguments


def environment() -> dict[str, str]:
    """Return the environment in which `module` finds this very package, installed or not."""
    return {**os.environ, "PYTHONPATH": _PACKAGE_ROOT}


def start(
    netns: Netns,
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` inside `netns` with its output in pipes; the caller owns the process.

    Raise RequirementError when the program is not installed.
    """

    def spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)

    try:
        return netns.run(spawn)
    except FileNotFoundError as error:
        raise RequirementError(f"{argv[0]} is not installed; install its package and try again") from error


def output(netns: Netns, argv: Sequence[str], timeout_s: float = 15.0) -> tuple[int, bytes, bytes]:
    """Run `argv` inside `netns` to its end; return exit status, standard output and standard error.

    A program that outlives `timeout_s` is killed and reported with a ZproxyError.
    """
    with start(netns, argv) as process:
        try:
            out, error = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            raise ZproxyError(f"{argv[0]} did not end within {timeout_s:.0f} s in {netns.path}") from expired
    return process.returncode, out, error


def become(netns: Netns, argv: Sequence[str]) -> NoReturn:
    """Replace this process by `argv` inside `netns`; raise ZproxyError when it cannot be started.

    What the pod has of its own in /etc is there for `argv`, and so for name look-ups.
    """

    def replace() -> NoReturn:
        os.execvp(argv[0], list(argv))  # noqa: S606  # no shell is wanted: this is what `lab exec` is

    try:
        pod_files.enter(netns.path)
        netns.run(replace)
    except OSError as error:
        raise ZproxyError(f"{argv[0]} cannot be started in {netns.path}: {error.strerror}") from error
    raise AssertionError("execvp returned")
