"""Compile the load generator, and run it: windows of load, the app, idle connections."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).with_name("load.c")
APP_PORT: Final = 9000
GRACE_S: Final = 20.0
"""How much longer than planned a run may take before it is given up."""

Process = subprocess.Popen[str]


class LoadError(Exception):
    """A run that broke: what the generator said, or that it said nothing in time."""


def compile_load(directory: Path) -> Path:
    """Return the program, built with the system's C compiler; raise LoadError with the compiler's words."""
    program = directory / "load"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise LoadError("there is no C compiler: `make bench` installs it, with gcc") from None
    if done.returncode:
        raise LoadError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return program


def inside(namespace: str, *command: str) -> list[str]:
    """Return `command` as it runs inside a namespace; ip replaces itself by it, so the pid is its own."""
    return ["ip", "netns", "exec", namespace, *command]


@contextmanager
def running(command: Sequence[str], patience_s: float) -> Iterator[Process]:
    """Run `command` for the block with pipes on all sides; it is killed at the end, or after `patience_s`."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        timer = threading.Timer(patience_s, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def line_of(process: Process) -> str:
    """Return the next line of its output; raise LoadError when it has ended instead."""
    assert process.stdout
    assert process.stderr
    if line := process.stdout.readline():
        return line.strip()
    raise LoadError(process.stderr.read().strip() or "the load generator was silent for too long")


def window(
    command: Sequence[str], seconds: float, sample: Callable[[int], Mapping[str, float]]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a load; return its object and by how much `sample`, given its pid, grew inside its window."""
    with running(command, seconds + GRACE_S) as process:
        _expect(process, "start")
        before = sample(process.pid)
        _expect(process, "end")
        after = sample(process.pid)
        return json.loads(line_of(process)), {key: after[key] - value for key, value in before.items()}


def _expect(process: Process, word: str) -> None:
    if (said := line_of(process)) != word:
        raise LoadError(f"the load generator said {said!r} instead of {word!r}")


@contextmanager
def app(program: Path, namespace: str, word: str = "serve", port: int = APP_PORT) -> Iterator[Process]:
    """Run the app, or the capturing listener, for the block."""
    command = inside(namespace, str(program), word, str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            if process.stdout.readline().strip() != "ready":
                raise LoadError(f"the app on port {port} does not start")
            yield process
        finally:
            process.kill()
