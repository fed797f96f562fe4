"""The lab's mesh file under `zproxy lab policy`: policies are added to it behind a mark, and go again."""

import os
import re
import signal
import time
from typing import Final, NamedTuple

from zproxy.errors import ConfigError, ZproxyError
from zproxy.lab import jobs
from zproxy.lab.layout import SERVICE
from zproxy.lab.lifecycle import Lab
from zproxy.lab.mesh import MARK
from zproxy.node.client import Client

_POLICIES: Final = re.compile(r"^policies\s*:", re.MULTILINE)
_TAKEN_S: Final = 5.0
"""How long the daemons may take to have the file; they read it as soon as they are told to."""
_POLL_S: Final = 0.01


class Policy(NamedTuple):
    """An authorization policy for the pods of the lab's namespace, about one client."""

    name: str
    action: str
    """`Allow` or `Deny`."""
    principal: str
    """The client's identity without `spiffe://`."""

    @property
    def key(self) -> str:
        """`namespace/name`, as log lines name it."""
        return f"{SERVICE.namespace}/{self.name}"

    def text(self) -> str:
        """Return its entry in the mesh file."""
        return (
            f"- name: {self.name}\n"
            f"  namespace: {SERVICE.namespace}\n"
            "  scope: Namespace\n"
            f"  action: {self.action}\n"
            f"  rules: [[[{{principals: [{{Exact: {self.principal}}}]}}]]]\n"
        )


def own_text(lab: Lab) -> str:
    """Return the file without what a killed `zproxy lab policy` left; raise ConfigError when it has policies.

    A mesh file has ONE list of policies, and one that somebody else wrote is not ours to change.
    """
    text, _, _ = lab.mesh.read_text().partition(MARK)
    if _POLICIES.search(text):
        raise ConfigError(f"{lab.mesh} has policies already; take them out to see what others would do")
    return text


def with_policies(text: str, policies: tuple[Policy, ...]) -> str:
    """Return the file with these policies and no others."""
    entries = "".join(policy.text() for policy in policies)
    return f"{text}{MARK}policies:\n{entries}" if policies else text


def put(lab: Lab, text: str) -> float:
    """Replace the file in one step, and tell the daemons; return when that was (monotonic).

    They would find it by themselves within a second.
    """
    new = lab.mesh.with_suffix(".new")
    new.write_text(text)
    os.replace(new, lab.mesh)
    now = time.monotonic()
    for job in lab.daemons:
        jobs.send(job, signal.SIGHUP)
    return now


def wait_until_taken(lab: Lab, policies: tuple[Policy, ...]) -> None:
    """Wait until both daemons have these policies and no others; raise ZproxyError when they do not."""
    wanted = sorted(policy.key for policy in policies)
    deadline = time.monotonic() + _TAKEN_S
    for node in lab.layout.nodes:
        while (found := _policies_of(node.name)) != wanted:
            if time.monotonic() > deadline:
                has = " and ".join(found) or "no policy"
                raise ZproxyError(f"{node.name} did not take the mesh file in {_TAKEN_S:.0f} s: it has {has}")
            time.sleep(_POLL_S)


def _policies_of(node: str) -> list[str]:
    return sorted(f"{row['namespace']}/{row['name']}" for row in Client(node).call("policies"))
