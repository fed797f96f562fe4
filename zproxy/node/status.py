"""`zproxy status`: the state of nodes and pods as the kernel has it, with or without a daemon.

Nothing that a daemon remembers is asked for, but how it stands with istio-cni. What should be there follows
from the records that enrolment wrote; what is there, from pins, maps, links and the pods' namespaces.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from zproxy.errors import RequirementError, ZproxyError
from zproxy.model.attach import Attach
from zproxy.net import namespaces
from zproxy.net.netns import Netns
from zproxy.node.client import Client
from zproxy.node.drift import Wanted, judge, judge_node
from zproxy.node.facts import gather
from zproxy.node.findings import Finding, Status
from zproxy.node.present import Known, Site
from zproxy.steering import cgroups
from zproxy.steering.inspect_pod import Inspector

Row = dict[str, Any]
EXTERNAL: Final = "external: by the rules that istio-cni put into the pods"
BY_HAND: Final = "remove it with `zproxy cleanup`, or what is dead of it by starting the daemon"
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


class NodeLook:
    """One look at one node, for several questions."""

    def __init__(self, site: Site, inspector: Inspector | None, fault: str) -> None:
        """Use `Site.opened` for the last two."""
        self._site = site
        self._inspector = inspector
        self._fault = fault
        self._daemon = site.daemon()
        self._owned = _sockets_of(self._daemon) if self._daemon else None
        self.pods: list[Known] = site.pods(inspector)

    def node(self) -> list[Row]:
        """Return a row for each check of the node itself."""
        return [self._row("", finding) for finding in self._node()]

    def pod(self, pod: Known) -> list[Row]:
        """Return a row for each check of one pod."""
        return [self._row(pod.name, finding) for finding in self._pod(pod)]

    def summary(self, pod: Known) -> Row:
        """Return one row that says how a pod is."""
        findings = self._pod(pod)
        bad = [finding for finding in findings if finding.status.is_bad]
        if not bad:
            return self._row(pod.name, Finding("pod", Status.OK, f"{len(findings)} checks"))
        detail = f"{len(bad)} of {len(findings)} checks: {', '.join(finding.check for finding in bad)}"
        remedy = f"`zproxy status {pod.name}` says more"
        return self._row(pod.name, Finding("pod", bad[0].status, detail, remedy))

    def _row(self, pod: str, finding: Finding) -> Row:
        remedy = finding.remedy
        if finding.repair is not None:
            remedy = (
                "the daemon repairs it within a minute; if not, its log and `zproxy pods` say why"
                if self._daemon is not None
                else f"start the daemon, which repairs it: zproxy run --node {self._site.node}"
            )
        return {
            "node": self._site.node,
            "pod": pod,
            "check": finding.check,
            "status": finding.status.value,
            "detail": finding.detail,
            "remedy": remedy,
        }

    def _node(self) -> Iterator[Finding]:
        yield self._daemon_finding()
        figures = figures_of(self._site.node) if self._daemon is not None else {}
        yield from zds_finding(figures)
        if figures.get("steering") == "external":
            yield Finding("steering", Status.OK, EXTERNAL)
            return
        if self._inspector is None:
            remedy = (
                f"`zproxy cleanup --node {self._site.node}` removes what is there; a daemon makes it anew"
            )
            yield Finding("pins", Status.MISSING, self._fault, remedy)
            return
        try:
            root = self._site.cgroup_root or cgroups.root_cgroup()
        except RequirementError as error:
            yield Finding("cgroup v2", Status.MISSING, str(error), "`zproxy doctor` says more")
            return
        yield from judge_node(self._inspector.node(root.stat().st_ino))
        yield from self._choices(self._inspector, root)

    def _choices(self, inspector: Inspector, root: Path) -> Iterator[Finding]:
        """How programs are attached and probes known: chosen by whoever started the daemon."""
        mode = inspector.attach_mode()
        where = {
            Attach.ROOT: f"the cgroup root {root}, guarded by the pods' netns cookies",
            Attach.POD: "the pods' own cgroups",
            Attach.BOTH: f"the cgroup root {root} and the pods' own cgroups",
        }
        yield Finding("attachment", Status.OK, f"{mode.value}: {where[mode]}")
        yield Finding("probes", Status.OK, inspector.probes())

    def _daemon_finding(self) -> Finding:
        if self._daemon is None:
            remedy = f"zproxy run --node {self._site.node} --config FILE"
            detail = "none: enrolled pods are refused" if self.pods else "none"
            return Finding("daemon", Status.MISSING, detail, remedy)
        return Finding("daemon", Status.OK, f"pid {self._daemon or 'unknown'}")

    def _pod(self, pod: Known) -> list[Finding]:
        netns = namespaces.find(pod.cookie, (pod.record.netns,) if pod.record else ())
        if netns is None:
            detail = f"there is none with cookie {pod.cookie} any more"
            return [Finding("namespace", Status.MISSING, detail, BY_HAND)]
        with netns:
            return [
                Finding("namespace", Status.OK, f"{netns.path}, inode {netns.key[1]}, cookie {pod.cookie}"),
                _record(pod),
                *self._steered(pod, netns),
            ]

    def _steered(self, pod: Known, netns: Netns) -> list[Finding]:
        if pod.record is not None and pod.record.is_external:
            return [Finding("steering", Status.OK, EXTERNAL)]
        return self._drift(pod, netns)

    def _drift(self, pod: Known, netns: Netns) -> list[Finding]:
        if self._inspector is None:
            return [Finding("steering", Status.MISSING, self._fault, BY_HAND)]
        entry = next((each for each in self._inspector.entries() if each.cookie == pod.cookie), None)
        options = pod.record.options if pod.record else entry.options if entry else None
        if options is None:
            return [Finding("pod entry", Status.MISSING, "neither in zp_pods nor in a record", BY_HAND)]
        wanted = Wanted(pod.name, pod.cookie, options, self._inspector.programs(), self._owned)
        claimed = tuple(self._inspector.claims().get(pod.cookie, ()))
        try:
            return judge(wanted, gather(self._inspector, pod.cookie, netns, claimed))
        except OSError as error:
            return [Finding("namespace", Status.MISSING, f"cannot be looked at: {error}")]


def figures_of(node: str) -> Row:
    """Return what a living daemon says of itself; nothing when it begins, ends or hangs."""
    try:
        figures: Row = Client(node).call("status")
    except ZproxyError:
        return {}
    return figures


def zds_finding(figures: Row) -> Iterator[Finding]:
    """How a daemon stands with istio-cni, where it is to take pods from it: only it knows."""
    zds = figures.get("zds")
    if zds is None:
        return
    pending = ", ".join(f"{each['pod']}: {each['reason']}" for each in zds["pending"])
    if not zds["connected"]:
        remedy = f"is istio-cni running, and is its directory mounted? it listens at {zds['socket']}"
        yield Finding("zds", Status.MISSING, f"not connected: {zds['fault']}", remedy)
    elif pending:
        yield Finding("zds", Status.DRIFTED, f"not taken yet, {pending}", "mend that; it is tried every 5 s")
    elif not zds["ready"]:
        yield Finding("zds", Status.NOTE, "connected; istio-cni has not named all pods yet")
    else:
        yield Finding("zds", Status.OK, f"connected to {zds['socket']}, ready")


def _record(pod: Known) -> Finding:
    if pod.record is None:
        remedy = f"`zproxy enroll {pod.name}` again, or `zproxy unenroll --force {pod.name}`"
        return Finding("record", Status.MISSING, "none: a restarted daemon would not take it up", remedy)
    return Finding("record", Status.OK, ", ".join(_words(pod.record.options.as_json())))


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    return (
        f"{name} {'on' if value is True else 'off' if value is False else value}"
        for name, value in options.items()
    )


def _sockets_of(pid: int) -> frozenset[int] | None:
    """Return the inodes of a process's sockets, None when nobody may look."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            match = _SOCKET.fullmatch(_target(Path(f"/proc/{pid}/fd", name)))
            if match:
                found.add(int(match[1]))
    except OSError:
        return None
    return frozenset(found)


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # closed meanwhile


def look(names: list[str], pod: str | None) -> list[Row]:
    """Return the rows of `zproxy status` for these nodes: of one pod, or of nodes and all their pods.

    Raise ZproxyError when there is no such pod, RequirementError for who is not root.
    """
    if os.geteuid() != 0:
        raise RequirementError("zproxy status reads the kernel's state, which takes root; use sudo")
    rows: list[Row] = []
    for name in names:
        site = Site(name)
        with site.opened() as (inspector, _, fault):
            seen = NodeLook(site, inspector, fault)
            if pod is None:
                rows += [*seen.node(), *map(seen.summary, seen.pods)]
            else:
                rows += [row for each in seen.pods if each.name == pod for row in seen.pod(each)]
    if pod is not None and not rows:
        raise ZproxyError(
            f"{pod} is not enrolled on {' or '.join(names) or 'any node'}: no record, map or pin has it; "
            "`zproxy status` lists what there is"
        )
    return rows
