"""The reconciler: compares each pod with the kernel, at start, every minute and when the kernel says that
something changed, and repairs what zproxy itself made. It decides nothing: drift.py does.

One pod at a time, in a thread, with pauses: it takes a small share of a core however many pods there are and
whatever they do. While a pod is looked at nobody enrols or unenrols; that takes a millisecond or two.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Final

from zproxy.errors import ZproxyError
from zproxy.net import namespaces
from zproxy.net.netns import Netns
from zproxy.net.tasks import in_thread
from zproxy.node import resolv_conf
from zproxy.node.drift import Wanted, judge, judge_node
from zproxy.node.drift_log import DriftLog
from zproxy.node.facts import PodFacts, gather
from zproxy.node.findings import Finding, Repair
from zproxy.node.manager import Manager
from zproxy.node.pod import Pod
from zproxy.node.refused import Refused
from zproxy.node.watch import Watches
from zproxy.steering.inspect_pod import Inspector
from zproxy.steering.steering import PodSteering, Steering

PERIOD_S: Final = 60.0
SETTLE_S: Final = 0.02
"""From the first notice to the look: changes come in bursts."""
BURST: Final = 5
"""Looks at one pod that notices may ask for at once; then one a second."""
SHARE: Final = 0.05
"""Of one core that looking and mending may take."""
LONGEST_PAUSE_S: Final = 0.5
DEAD_S: Final = 1.0
"""How long a namespace must have been out of reach: mounts and processes come and go in steps."""
ENDING_S: Final = 3.0
"""What a pod that loses its last address has left to end: runtimes take the network down before the rest."""
CLAIMS_S: Final = 5.0
"""How old a look at all of zp_podip may be; what it names is asked for again one by one."""

_log = logging.getLogger("zproxy.reconcile")


class Reconciler:
    """Lives on the event loop; blocking work goes to threads. `run` is its whole life."""

    def __init__(self, manager: Manager, steering: Steering, period_s: float = PERIOD_S) -> None:
        self.log = DriftLog()
        self._manager = manager
        self._steering = steering
        self._period_s = period_s
        self._watches = Watches(self._on_notice)
        self._urgent: dict[int, None] = {}
        """Cookies of the pods in which something happened: they come first."""
        self._due: dict[int, None] = {}
        """Those that are looked at because it is time to."""
        self._credit: dict[int, tuple[float, float]] = {}
        """Cookie → when it was last looked at because of a notice, and how many looks it had left then."""
        self._bare: dict[int, float] = {}
        """Cookie of a pod that has no address → until when it may be ending, on the loop's clock."""
        self._wake = asyncio.Event()
        self._claims: tuple[float, dict[int, list[str]]] = (-CLAIMS_S, {})
        manager.on_change = self.look

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                next_sweep = loop.time() + self._period_s
                await self._guarded(self.sweep)
                while (left := next_sweep - loop.time()) > 0:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), left)
                    await self._guarded(self._look_at_asked)
        finally:
            self._watches.keep(set())

    def look(self, cookie: int) -> None:
        """Have a pod looked at soon; on the event loop's thread."""
        self._urgent[cookie] = None
        self._wake.set()

    async def sweep(self) -> None:
        """Look at everything once."""
        await self._look_at_node()
        await self._manager.restore()
        await self.collect()
        for pod in tuple(self._manager.pods.values()):
            self._due[pod.cookie] = None
        alive = {pod.cookie for pod in self._manager.pods.values()}
        self._watches.keep(alive)
        self._bare = {cookie: until for cookie, until in self._bare.items() if cookie in alive}
        self._credit = {cookie: left for cookie, left in self._credit.items() if cookie in self._watches}
        await self._look_at_asked()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """A mistake here must not end the watch over the pods."""
        try:
            await work()
        except Exception:
            _log.exception("the reconciler stumbled and goes on")

    def _on_notice(self, cookie: int) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        at, left = self._credit.get(cookie, (now, BURST))
        left = max(min(BURST, left + now - at) - 1, -1)
        self._credit[cookie] = (now, left)
        loop.call_later(max(SETTLE_S, -left), self.look, cookie)

    async def _look_at_asked(self) -> None:
        self._wake.clear()
        while first := self._urgent or self._due:
            cookie = next(iter(first))
            self._urgent.pop(cookie, None)
            self._due.pop(cookie, None)
            async with self._manager.lock:
                began = perf_counter()
                pod = next((each for each in self._manager.pods.values() if each.cookie == cookie), None)
                if pod is None:
                    self._watches.close(cookie)
                    continue
                await self._look_at(pod)
            spent = perf_counter() - began
            self.log.seconds += spent
            await asyncio.sleep(min(spent / SHARE, LONGEST_PAUSE_S))

    async def _look_at(self, pod: Pod) -> None:
        self.log.looks += 1
        if pod.cookie in self._watches:
            self._watches.drain(pod.cookie)
        else:
            self._watches.open(pod.cookie, pod.netns)
            tell = partial(asyncio.get_running_loop().call_soon_threadsafe, self._on_notice, pod.cookie)
            await pod.straw.when_lost(tell)
        try:
            await pod.straw.use(await in_thread(lambda: resolv_conf.read(pod.netns, pod.pid)))
            found, facts = await self._findings(pod)
            if self._seems_to_end(pod.cookie, facts):
                return
            if found:
                done = await self._mend(pod, found, facts)
                left, _ = await self._findings(pod)
                self.log.report(pod.name, found, left, done)
            else:
                self.log.report(pod.name, (), (), "")
        except (OSError, ZproxyError) as error:
            self.log.failed(pod.name, error)
        finally:
            self._watches.rearm(pod.cookie)

    def _seems_to_end(self, cookie: int, facts: PodFacts) -> bool:
        """A pod without any address is being taken down, as a rule: look again before anything is said."""
        if facts.network.ips:
            self._bare.pop(cookie, None)
            return False
        loop = asyncio.get_running_loop()
        if cookie not in self._bare:
            self._bare[cookie] = loop.time() + ENDING_S
            loop.call_later(ENDING_S, self.look, cookie)
        return loop.time() < self._bare[cookie]

    async def _findings(self, pod: Pod) -> tuple[list[Finding], PodFacts]:
        inspector = self._steering.inspector
        owned = await pod.straw.sockets()

        def look() -> tuple[list[Finding], PodFacts]:
            wanted = Wanted(pod.name, pod.cookie, pod.options, inspector.programs(), owned)
            claimed = tuple(self._claimed(inspector).get(pod.cookie, ()))
            facts = gather(inspector, pod.cookie, pod.netns, claimed)
            return [finding for finding in judge(wanted, facts) if finding.status.is_bad], facts

        return await in_thread(look)

    def _claimed(self, inspector: Inspector) -> dict[int, list[str]]:
        """Read the whole map once for many pods, or the cost would grow with their square."""
        now = monotonic()
        if now - self._claims[0] > CLAIMS_S:
            self._claims = (now, inspector.claims())
        return self._claims[1]

    async def _mend(self, pod: Pod, found: list[Finding], facts: PodFacts) -> str:
        repairs = {finding.repair for finding in found if finding.repair is not None}
        if Repair.LISTENERS in repairs:
            repairs.add(Repair.STEERING)  # which has to hand over another socket
        done = []
        for repair in (each for each in Repair if each in repairs):
            try:
                await self._repair(repair, pod, facts)
                done.append(repair.value)
            except (OSError, ZproxyError) as error:
                done.append(f"that failed: {error}")
        return ", ".join(done)

    async def _repair(self, repair: Repair, pod: Pod, facts: PodFacts) -> None:
        if repair is Repair.LISTENERS:
            await pod.straw.reopen()
        elif repair is Repair.NETWORK:
            await in_thread(partial(self._prepare, pod, facts))
        elif repair is Repair.STEERING:
            await in_thread(partial(self._attach, pod, facts))

    def _prepare(self, pod: Pod, facts: PodFacts) -> None:
        """Its routes have an address as source and an interface, which may be others than at enrolment."""
        pod.network.prepare()
        network = facts.network
        if pod.options.dns and network.carriers:
            pod.network.capture_dns(network.ips, network.carriers[0].name)

    def _attach(self, pod: Pod, facts: PodFacts) -> None:
        self._steering.attach(
            PodSteering(
                netns=pod.netns,
                cookie=pod.cookie,
                name=pod.name,
                uid=pod.workload.uid,
                ips=facts.network.ips,
                interfaces=tuple(each.name for each in facts.network.carriers),
                plaintext_listener=pod.straw.plaintext_fd,
                options=pod.options,
                source_ports=pod.network.source_ports(),
                cgroup=pod.cgroup.path,
            )
        )

    async def _look_at_node(self) -> None:
        def look() -> list[Finding]:
            return [finding for finding in judge_node(self._steering.node_facts()) if finding.status.is_bad]

        whose = f"node {self._manager.node}"
        try:
            found = await in_thread(look)
            if found:
                if any(finding.repair for finding in found):
                    await in_thread(self._steering.mend)
                self.log.report(whose, found, await in_thread(look), Repair.HOOKS.value)
        except (OSError, ZproxyError) as error:
            self.log.failed(whose, error)

    async def collect(self) -> None:
        """Forget pods that nobody can enter any more, and what is left of others in maps and pins.

        A pod that was handed over goes when whoever did that says so: its namespace may be mounted where only
        they can see it.
        """
        found = tuple(pod for pod in self._manager.pods.values() if not pod.handed)
        suspects = await self._out_of_reach(found)
        if suspects:
            await asyncio.sleep(DEAD_S)
        for pod in await self._out_of_reach(suspects):
            async with self._manager.lock:
                if self._manager.pods.get(pod.name) is pod:
                    self._watches.close(pod.cookie)
                    await self._manager.collect(pod)
                    self.log.gone(pod.name, "its namespace is gone")
        async with self._manager.lock:
            await self._collect_orphans()

    async def _out_of_reach(self, pods: tuple[Pod, ...]) -> tuple[Pod, ...]:
        if not pods:
            return ()
        alive = await in_thread(namespaces.reachable)
        return tuple(pod for pod in pods if pod.netns.key not in alive and not _still_at(pod.netns))

    async def _collect_orphans(self) -> None:
        """What no pod and no record accounts for: steered and alive, it is refused and shown; else gone."""
        known = {pod.cookie for pod in self._manager.pods.values()} | await self._manager.recorded()
        inspector = self._steering.inspector
        for cookie in await in_thread(inspector.traces) - known:
            entries = await in_thread(inspector.entries)
            entry = next((each for each in entries if each.cookie == cookie), None)
            found = await in_thread(partial(namespaces.find, cookie))
            if found is not None:
                found.close()
            if found is None or entry is None:
                await in_thread(partial(self._steering.detach, cookie))
                self._manager.forget_refused(cookie)
                self.log.gone(entry.name if entry else f"a pod with cookie {cookie}", "map entries and pins")
            else:
                reason = "there is no record of its enrolment; enroll it again, or unenroll it"
                self._manager.refuse(Refused(entry.name, found.path, cookie, reason))


def _still_at(netns: Netns) -> bool:
    """Whether the path that a namespace was found under is still its own."""
    try:
        with Netns.open(netns.path) as found:
            return found.key == netns.key
    except OSError:
        return False
