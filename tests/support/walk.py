"""A walk-through in a document: commands, and what they print, compared as far as it does not vary."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.documents import Block, blocks
from zproxy.model import ports

ROOT = Path(__file__).parents[2]
MARK, BACKGROUND = "walk", "walk-background"
SAME = {"8080", *(str(value) for name, value in vars(ports).items() if isinstance(value, int))}
"""Numbers that are the same in every run; all others above a byte are not."""


class Step(NamedTuple):
    """One command and the output that the document shows, which may be nothing."""

    command: str
    shown: str
    is_background: bool


def steps(document: str) -> list[Step]:
    """Return the walk of a document in order."""
    found = [block for block in blocks(document) if block.mark in (MARK, BACKGROUND)]
    return [
        Step(block.text, _output_of(found, number), block.mark == BACKGROUND)
        for number, block in enumerate(found)
        if block.language == "sh"
    ]


def _output_of(found: Sequence[Block], number: int) -> str:
    following = found[number + 1 : number + 2]
    return following[0].text if following and following[0].language == "text" else ""


def stable(text: str) -> str:
    """Return the part of an output that does not vary: without ids, cookies, sizes, tags, times, widths."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+\d{4})?", "TIME", text)
    text = re.sub(r"tag [0-9a-f]{16}", "tag TAG", text)
    text = re.sub(r"value: (?:[0-9a-f]{2}\b ?)+", "value: BYTES ", text)
    text = re.sub(r"\[[\d,\s]*\]", lambda found: re.sub(r"\s", "", found[0]).replace(",", "."), text)
    text = re.sub(r"(?<![\w.:\[])\d+(?![\w.\]])", _number, text)
    text = re.sub(r"(?<=:)\d+\b|\b[0-9a-f]+(?=B\b)", _number, text)
    text = re.sub(r"\b(sk|ino):[0-9a-f]+", r"\1:N", text)
    text = re.sub(r"\b\d+(B|s)\b", r"N\1", text)
    return re.sub(r"\s+", " ", text).strip()


def _number(found: re.Match[str]) -> str:
    return found[0] if found[0] in SAME else "N"


@contextmanager
def walking() -> Iterator["Walk"]:
    """Give a walk that ends what it started in the background."""
    with ExitStack() as stack:
        yield Walk(stack)


class Walk:
    """Runs commands as a reader would, in the project's directory."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin"}

    def run(self, command: str) -> str:
        """Run a command and return what it prints; fail when it does."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}says:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, command: str) -> None:
        """Leave a command running until the walk is over."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.terminate)
