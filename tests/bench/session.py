"""What every benchmark begins and ends with: root and two cores, the machine for itself, a way to stop it."""

import os
import platform
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.support import machine
from tests.support.netns import leftovers, remove
from zproxy import __version__
from zproxy.wire.tls import choose_engine

INTERRUPTED = 130


def alone(measure: Callable[[], None]) -> int:
    """Call `measure` with the machine for itself; return 0, or INTERRUPTED when somebody stopped it.

    Ends the process with a sentence when this cannot be measured here.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if os.geteuid() != 0:
        die("bench needs root, for BPF and network namespaces; run it as root")
    if len(os.sched_getaffinity(0)) < 2:
        die("bench needs two cores: the pinned cells give one to the proxies and one to the load")
    try:
        with machine.exclusive("waiting for another run of tests or benchmarks"):
            measure()
    except KeyboardInterrupt:
        for name in leftovers():  # whose removal was what the interrupt met
            remove(name)
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _interrupt(*_: object) -> NoReturn:
    """Take everything down, and let no second signal disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def die(sentence: str) -> NoReturn:
    """End the process with what is wrong."""
    sys.exit(f"bench: {sentence}")


def described(*more: str) -> str:
    """Return the line that says on what these figures were measured, and with what."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = model[1] if model else platform.machine()
    with_what = (
        f"zproxy {__version__}, TLS by {choose_engine().name}, Python {platform.python_version()}",
        *more,
    )
    return f"machine: Linux {platform.release()}, {os.cpu_count()} x {cpu}; {', '.join(with_what)}"
