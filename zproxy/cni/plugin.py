"""`zproxy-cni`: what a container runtime runs when a pod is born, looked at, or ends (CNI spec 1.1.0).

It lives for some tens of milliseconds, most of which Python takes to start: NEVER import here what those can
be spared, and nothing outside the standard library, for it runs without site-packages. It asks the node's
daemon and changes nothing itself.
"""

import json
import os
import sys
import syslog
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from zproxy.cni.failure import CniError, Code
from zproxy.cni.request import VERSIONS, Request, read, version_of
from zproxy.errors import NoDaemon, ZproxyError
from zproxy.node.client import Client

MAX_STDIN: Final = 16 << 20
"""Of bytes that a runtime sends; real ones send a few thousand."""


class Outcome(NamedTuple):
    """What the plugin answers."""

    status: int
    """Of its process."""
    stdout: str = ""
    notes: tuple[str, ...] = ()
    """For the node's log: a runtime shows stderr of plugins that failed, if at all."""


def main() -> None:
    """Be the plugin; end the process."""
    text = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_STDIN)
    outcome = answer(os.environ, text)
    for note in outcome.notes:
        sys.stderr.write(f"zproxy-cni: {note}\n")
        syslog.syslog(syslog.LOG_WARNING, f"zproxy-cni: {note}")
    sys.stdout.write(outcome.stdout)
    sys.stdout.flush()
    os._exit(outcome.status)  # there is nothing to tear down


def answer(environment: Mapping[str, str], text: bytes) -> Outcome:
    """Do what a runtime asks for; NEVER raise, whatever it is."""
    version = version_of(text)
    try:
        if environment.get("CNI_COMMAND") == "VERSION":
            return Outcome(0, _line({"cniVersion": version, "supportedVersions": list(VERSIONS)}))
        request = read(environment, text)
        return COMMANDS[request.command](request)
    except CniError as error:
        failure = error
    except Exception as error:
        failure = CniError(Code.INTERNAL, "internal error of zproxy-cni", repr(error))
    shown = version if version in VERSIONS else VERSIONS[-1]
    return Outcome(1, _line(failure.as_json(shown)))


def _add(request: Request) -> Outcome:
    """Enrol the pod; on success the result is what the plugins before made, unchanged."""
    passed = _line(request.result or {})
    if not request.pod:
        return Outcome(0, passed, ("CNI_ARGS names no pod: what is born is outside the mesh",))
    settings = request.settings
    try:
        _ask(
            request,
            "cni_add",
            pod=request.pod,
            netns=request.netns,
            attachment=request.attachment,
            ips=request.ips,
            wait_ms=settings.wait_ms,
        )
    except CniError as error:
        if not settings.fail_open:
            raise
        return Outcome(0, passed, (f"{request.pod} is born outside the mesh (failOpen): {error}",))
    return Outcome(0, passed)


def _check(request: Request) -> Outcome:
    if not request.pod:
        return Outcome(0)
    try:
        _ask(request, "cni_check", pod=request.pod, netns=request.netns, ips=request.ips)
    except CniError as error:
        if not request.settings.fail_open:
            raise
        return Outcome(0, notes=(f"{request.pod} may be outside the mesh (failOpen): {error}",))
    return Outcome(0)


def _delete(request: Request) -> Outcome:
    """Best effort: NEVER hold up the end of a pod. A daemon that is away finds by itself what has gone."""
    if not request.pod:
        return Outcome(0)
    try:
        _ask(request, "cni_delete", pod=request.pod, attachment=request.attachment, netns=request.netns)
    except CniError as error:
        return Outcome(0, notes=(f"{request.pod} ended, and the daemon was not told: {error}",))
    return Outcome(0)


def _collect(request: Request) -> Outcome:
    _ask(request, "cni_collect", network=request.network, valid=list(request.valid))
    return Outcome(0)


def _status(request: Request) -> Outcome:
    try:
        _ask(request, "status")
    except CniError as error:
        if request.settings.fail_open:
            return Outcome(0, notes=(f"pods are born outside the mesh (failOpen): {error}",))
        raise CniError(Code.NOT_AVAILABLE, error.message, error.details) from error
    return Outcome(0)


def _ask(request: Request, command: str, **arguments: Any) -> None:
    """Have the daemon do something; raise CniError when it is not there, or says no."""
    settings = request.settings
    patience_ms = settings.timeout_ms + (settings.wait_ms if command == "cni_add" else 0)
    client = Client(settings.node, patience_ms / 1e3)
    try:
        client.call(command, **arguments)
    except NoDaemon as error:
        raise CniError(Code.TRY_AGAIN, str(error)) from error
    except ZproxyError as error:
        raise CniError(Code.REFUSED, str(error)) from error


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


COMMANDS: Final = {"ADD": _add, "CHECK": _check, "DEL": _delete, "GC": _collect, "STATUS": _status}
