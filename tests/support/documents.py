"""What a Markdown document claims: blocks, commands, targets, paths and links, found to be checked."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

FENCE = re.compile(r"^```(\w*) ?([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block: its language, the mark behind it (`run-root`, `mesh`), its text."""

    language: str
    mark: str
    text: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks in order."""
    return [Block(*found) for found in FENCE.findall(text)]


def code(text: str) -> list[str]:
    """Return every line of shell blocks, without its comment, and every inline code span."""
    lines = [line for block in blocks(text) if block.language == "sh" for line in block.text.splitlines()]
    spans = SPAN.findall(FENCE.sub("", text))
    return [line.partition(" #")[0].strip() for line in lines] + spans


def targets(text: str) -> Iterator[str]:
    """Yield the make targets that are named."""
    for line in code(text):
        yield from re.findall(r"^make ([a-z][a-z-]*)", line)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words that follow `zproxy` where it is called."""
    for line in code(text):
        if found := re.match(r"(?:\S*/)?zproxy (.+)", line):
            yield found[1].partition(" | ")[0].split()


def paths(text: str, tops: Sequence[str]) -> Iterator[str]:
    """Yield what is named as a path below one of the directories `tops`."""
    for span in SPAN.findall(FENCE.sub("", text)):
        if re.fullmatch(rf"({'|'.join(map(re.escape, tops))})/[\w./-]*", span):
            yield span


def links(text: str) -> Iterator[str]:
    """Yield the targets of links into the project itself."""
    for target in re.findall(r"\]\(([^)#]+)", FENCE.sub("", text)):
        if "://" not in target:
            yield target


def fault_of_command(words: Sequence[str], root: click.Command) -> str:
    """Say what is wrong with a command line by the commands and options that `root` has; "" if nothing is.

    Words in capitals stand for values. Values themselves are not judged.
    """
    command, rest = root, list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        if word.startswith("-"):
            option = _option(command, word.partition("=")[0])
            if option is None:
                return f"{command.name} has no option {word}"
            if not (option.is_flag or option.count or "=" in word):
                rest[:1] = []
        elif isinstance(command, click.Group):
            below = command.get_command(click.Context(command), word)
            if below is None:
                return f"{command.name} has no command {word}"
            command = below
    return ""


def _option(command: click.Command, word: str) -> click.Option | None:
    known = (each for each in command.params if isinstance(each, click.Option))
    help_option = command.get_help_option(click.Context(command))
    return next(
        (each for each in (*known, help_option) if each and word in (*each.opts, *each.secondary_opts)), None
    )


def rows(document: Path, heading: str) -> Iterator[list[str]]:
    """Yield the cells of the first table below a heading, without its head."""
    section = document.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    yield from ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
