"""Taking pods out and nodes down without a daemon: from records, pins and namespaces alone.

Every step says what it takes away before it does, so that a dry run lists what a real one would do. Only what
a zproxy made is touched: its pins, its own rule and route, its own files. What is half made is taken, too.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import CGROUP_ROOT
from zproxy.errors import ConfigError, EnrollError, RequirementError, SteeringError, ZproxyError
from zproxy.net import namespaces
from zproxy.net.netns import Netns
from zproxy.node.present import Known, Site
from zproxy.node.routes import PodNetwork
from zproxy.steering.inspect_pod import Inspector
from zproxy.steering.objects import Objects
from zproxy.steering.pins import entries
from zproxy.steering.pods import Pods
from zproxy.steering.steering import remove

RUN_FILES: Final = ("control.sock", "lock", CGROUP_ROOT)
"""What a daemon keeps in its directory, besides the records."""


class Step(NamedTuple):
    """One thing to take away."""

    kind: str
    what: str
    act: Callable[[], object]


class Done(NamedTuple):
    """One thing that was taken away, or would be."""

    node: str
    kind: str
    what: str
    result: str
    """gone, "would go", or why it is still there."""


def unenroll(site: Site, pod: str, *, dry_run: bool = False) -> list[Done]:
    """Take one pod out; raise EnrollError when there is nothing of it, ConfigError while a daemon lives."""
    with _alone(site, is_kept=True, dry_run=dry_run), site.opened() as (inspector, objects, fault):
        known = [each for each in site.pods(inspector) if each.name == pod]
        if not known:
            raise EnrollError(f"{pod} is not enrolled on node {site.node}: no record, map or pin has it")
        if objects is None and entries(site.pins.directory):
            raise SteeringError(
                f"one pod cannot be taken out alone: {fault}; `zproxy cleanup --node {site.node}` removes all"
            )
        steps = [step for each in known for step in _pod(site, each, inspector, objects)]
        return _take(site, steps, dry_run=dry_run)


def refuse_living(sites: Iterable[Site]) -> None:
    """Raise ConfigError when one of these nodes has a living daemon, before any other is touched."""
    for site in sites:
        _refuse_living(site, "")


def cleanup(site: Site, *, dry_run: bool = False) -> list[Done]:
    """Take down everything of a node; raise ConfigError while a daemon of it lives."""
    with _alone(site, is_kept=False, dry_run=dry_run):
        if strangers := site.pins.strangers():
            raise SteeringError(
                f"{strangers[0]} is not zproxy's, so nothing of node {site.node} is touched; remove it first"
            )
        with site.opened() as (inspector, objects, _):
            steps = [step for each in site.pods(inspector) for step in _pod(site, each, inspector, objects)]
            done = _take(site, steps, dry_run=dry_run)
        return done + _take(site, [*_pins(site), *_files(site)], dry_run=dry_run)


def _pod(site: Site, pod: Known, inspector: Inspector | None, objects: Objects | None) -> Iterator[Step]:
    """Steering goes first: from then on the pod's connections are its own."""
    if inspector is not None and objects is not None and pod.cookie in inspector.traces():
        yield Step("steering", pod.name, lambda: Pods(site.pins, objects).detach(pod.cookie))
    netns = namespaces.find(pod.cookie, (pod.record.netns,) if pod.record else ())
    if netns is not None and pod.record is not None and pod.record.is_external:
        netns.close()  # what is in there is somebody else's
    elif netns is not None:
        path = netns.path
        netns.close()
        former = pod.record.former_sysctls if pod.record else {}
        what = "rules, routes and sysctls" if former else "rules and routes (former sysctls are not known)"
        yield Step("network", f"{what} in {path}", lambda: _restore(pod.cookie, path, former))
    if pod.record is not None:
        yield Step("record", pod.name, lambda: site.records.remove(pod.name))


def _restore(cookie: int, path: str, former: dict[str, str]) -> None:
    netns: Netns | None = namespaces.find(cookie, (path,))
    if netns is not None:
        with netns:
            PodNetwork(netns).restore(former)


def _pins(site: Site) -> Iterator[Step]:
    if site.pins.directory.exists():
        count = sum(len(files) for _, _, files in os.walk(site.pins.directory))
        yield Step(
            "pins", f"{site.pins.directory} with {count} objects", lambda: remove(site.node, site.pin_root)
        )


def _files(site: Site) -> Iterator[Step]:
    for path in site.records.files():
        yield Step("file", str(path), partial(path.unlink, missing_ok=True))
    for path in (site.run / name for name in RUN_FILES):
        if path.exists():
            yield Step("file", str(path), partial(path.unlink, missing_ok=True))
    if site.run.exists():
        yield Step("directory", str(site.run), lambda: _remove_directories(site.run))


def _remove_directories(run: Path) -> None:
    for path in (run / "pods", run):
        with suppress(FileNotFoundError):
            path.rmdir()
    with suppress(OSError):  # other nodes have theirs there
        run.parent.rmdir()


def _take(site: Site, steps: list[Step], *, dry_run: bool) -> list[Done]:
    """One step that fails keeps no other from being done."""
    return [Done(site.node, step.kind, step.what, _result(step, dry_run=dry_run)) for step in steps]


def _result(step: Step, *, dry_run: bool) -> str:
    if dry_run:
        return "would go"
    try:
        step.act()
    except OSError as error:
        return f"failed: {os.strerror(error.errno or 0)}"
    except ZproxyError as error:
        return f"failed: {error}"
    return "gone"


@contextmanager
def _alone(site: Site, *, is_kept: bool, dry_run: bool) -> Iterator[None]:
    """Hold the node's lock, so that no daemon starts meanwhile; raise ConfigError when one holds it."""
    if os.geteuid() != 0:
        raise RequirementError("this takes root: it changes namespaces and pins; use sudo")
    _refuse_living(site, ", or leave out --force" if is_kept else "")
    if dry_run or not site.run.exists():
        yield
        return
    fd = os.open(site.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(f"a daemon of node {site.node} has just started; stop it first") from None
    try:
        yield
    finally:
        os.close(fd)


def _refuse_living(site: Site, otherwise: str) -> None:
    pid = site.daemon()
    if pid is not None:
        raise ConfigError(
            f"the daemon of node {site.node} is alive (pid {pid or 'unknown'}); stop it first: "
            f"kill {pid or 'PID'}{otherwise}"
        )
