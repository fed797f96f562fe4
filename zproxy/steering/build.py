"""Run the loader child, and say in one sentence what went wrong when it fails."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import zproxy
from zproxy.errors import RequirementError, SteeringError, ZproxyError

TIMEOUT_S: Final = 60.0
"""It takes 0.5 s; a machine that needs a minute is not going to make it."""
_COMPILE_ERROR: Final = re.compile(r"^(\S+):(\d+):\d+: (?:fatal )?error: (.*)$", re.MULTILINE)
_LOAD_ERROR: Final = re.compile(r"Failed to load BPF program b'(\w+)': (.*)$", re.MULTILINE)
_VERIFIER_NOISE: Final = re.compile(
    r"^(processed \d+ insns|\d+: \(|\d+: R|; |from \d+ to|bpf: Failed|HINT:|Traceback|  |verification time|$)"
)

_log = logging.getLogger(__name__)


def load(maps: Path, programs: Path) -> None:
    """Compile, load and pin into two directories of bpffs; maps that are pinned there are used as they are.

    Blocks for about half a second. Raise RequirementError or SteeringError; what was pinned until then stays.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "zproxy.steering.loader",
        f"--maps={maps}",
        f"--programs={programs}",
    ]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SteeringError(
            f"compiling the eBPF programs took more than {TIMEOUT_S:.0f} s; is the machine overloaded?"
        ) from error
    if done.stderr:
        _log.debug("the eBPF loader said:\n%s", done.stderr)
    if done.returncode:
        raise diagnose(done.stdout, done.stderr)
    _log.info("eBPF programs loaded: %s", done.stdout.strip())


def _environment() -> dict[str, str]:
    """A checkout is found through PYTHONPATH; -P keeps the working directory out of the child's path."""
    base = Path(zproxy.__file__).parent.parent
    is_installed = base.name in {"site-packages", "dist-packages"}
    return dict(os.environ) if is_installed else dict(os.environ, PYTHONPATH=str(base))


def diagnose(stdout: str, stderr: str) -> ZproxyError:
    """Return the error that the output of a failed loader amounts to."""
    try:
        answer = json.loads(stdout)
        kind = RequirementError if answer["reason"] == RequirementError.reason else SteeringError
        return kind(answer["error"])
    except (ValueError, KeyError, TypeError):
        pass  # it did not get so far as to say it itself
    if match := _COMPILE_ERROR.search(stderr):
        return SteeringError(f"the eBPF programs do not compile: {match[1]} line {match[2]}: {match[3]}")
    if "super-user" in stderr or "Operation not permitted" in stderr:
        return RequirementError(
            "the kernel refused to load eBPF programs; run as root with CAP_BPF, CAP_NET_ADMIN and "
            "CAP_SYS_ADMIN (a container must be privileged)"
        )
    if match := _LOAD_ERROR.search(stderr):
        cause = _verdict(stderr) or match[2]
        hint = (
            "; zproxy needs Linux 6.6 or newer" if "unknown func" in cause or "invalid func" in cause else ""
        )
        return SteeringError(f"the kernel refused the eBPF program {match[1]}: {cause}{hint}")
    last = stderr.strip().rpartition("\n")[2] or "it ended without a word"
    return SteeringError(f"the eBPF loader failed: {last}")


def _verdict(stderr: str) -> str:
    """Return the verifier's own conclusion: the last line of its log that is neither code nor state."""
    log = stderr.partition("Traceback")[0].splitlines()
    return next((line.strip() for line in reversed(log) if not _VERIFIER_NOISE.match(line)), "")
