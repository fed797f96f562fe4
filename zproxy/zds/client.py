"""The ZDS client: takes the pods that istio-cni hands over, and lets go of those that it takes back.

Requests are carried out one by one, in their order, each answered within istio-cni's deadline. Where ztunnel
ends its process, after a request that makes no sense, we say so in the answer and in the log and connect
again: istio-cni sees the same, its connection ended, and the node's pods keep what serves them.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine
from random import uniform
from typing import Any, Final, Protocol

from zproxy.errors import EnrollError, ZproxyError
from zproxy.net.tasks import spawn
from zproxy.zds import wire
from zproxy.zds.channel import Channel, Packet, PacketBroken
from zproxy.zds.roster import ProtocolBroken, Roster

FIRST_WAIT_S: Final = 0.01
LONGEST_WAIT_S: Final = 15.0
"""Between two connections: doubled each time, ztunnel's values."""
JITTER: Final = 0.2
RETRY_S: Final = 5.0
"""Between tries at a pod that could not be taken, ztunnel's value."""
ANSWER_S: Final = 4.0
"""The longest that a request may take; istio-cni waits 5 s for its answer."""
ROUND_S: Final = 1.0
"""The longest that a round of further tries may keep requests waiting."""

_log = logging.getLogger("zproxy.zds")


class Pods(Protocol):
    """Who enrols."""

    async def take(self, uid: str, pod: tuple[str, str, str], fd: int) -> None:
        """Enrol (namespace, name, service account) by `fd`, which is owned from here on; idempotent."""

    async def release(self, uid: str) -> None:
        """Unenrol; nothing happens when there is no such pod."""

    async def known(self) -> list[str]:
        """Return the uids of all that were taken and not released, by any daemon of this node."""


class Held:
    """A pod that is to be taken, with the descriptor for further tries. Close it."""

    def __init__(self, info: wire.WorkloadInfo, fd: int) -> None:
        self.pod = (info.namespace, info.name, info.service_account)
        self.fd = fd
        self.task: asyncio.Task[None] | None = None
        """A try that takes longer than its answer could wait."""

    def close(self) -> None:
        """Drop the descriptor; a try that is under way has one of its own."""
        os.close(self.fd)


class ZdsClient:
    """`run` is its whole life, on the event loop."""

    def __init__(self, path: str, pods: Pods) -> None:
        self._path = path
        self._pods = pods
        self._roster = Roster[Held]()
        self._under_way: set[asyncio.Task[None]] = set()
        self._next_round = 0.0
        self._is_sound = False
        """Whether the connection brought a snapshot and nothing that was wrong."""
        self._fault = "not connected yet"
        self._connections = 0

    def status(self) -> dict[str, Any]:
        """Return how it stands with istio-cni; the keys are stable."""
        roster = self._roster
        return {
            "socket": self._path,
            "connected": roster.is_connected,
            "snapshot": roster.is_connected and roster.has_snapshot,
            "ready": roster.is_ready,
            "connections_total": self._connections,
            "fault": self._fault,
            "pending": [
                {"uid": uid, "pod": "/".join(held.pod[:2]), "reason": roster.reasons[uid]}
                for uid, held in roster.pending.items()
            ],
        }

    async def run(self) -> None:
        """Connect again and again until cancelled; then wait for what is under way."""
        wait = FIRST_WAIT_S
        try:
            while True:
                self._is_sound = False
                await self._connection()
                if self._is_sound:
                    wait = FIRST_WAIT_S
                await asyncio.sleep(wait * uniform(1, 1 + JITTER))  # noqa: S311 - no secret
                wait = min(2 * wait, LONGEST_WAIT_S)
        finally:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _connection(self) -> None:
        """Connect once and serve until that ends, for whatever reason; say why when it is another one."""
        try:
            channel = Channel.connect(self._path)
        except OSError as error:
            self._say(f"cannot connect: {os.strerror(error.errno or 0)}")
            return
        try:
            await channel.send(wire.hello())
            self._connections += 1
            self._roster.connect()
            self._fault = ""
            _log.info("connected to %s", self._path)
            await self._serve(channel)
            self._say("istio-cni closed the connection")
        except OSError as error:
            self._say(str(error) or type(error).__name__)
        except (PacketBroken, ProtocolBroken, wire.WireError) as error:
            self._is_sound = False
            self._say(f"protocol error: {error}")
        except Exception as error:
            self._is_sound = False
            self._fault = f"internal error: {error}"
            _log.exception("the connection to %s is given up", self._path)
        finally:
            for held in self._roster.disconnect():
                held.close()
            channel.close()

    def _say(self, fault: str) -> None:
        if fault != self._fault:
            _log.error("%s: %s; pods stay as they are, and it is tried again", self._path, fault)
        self._fault = fault

    async def _serve(self, channel: Channel) -> None:
        self._next_round = asyncio.get_running_loop().time() + RETRY_S
        while True:
            if self._is_round_due():
                await self._try_again()
            try:
                async with asyncio.timeout_at(self._next_round if self._roster.pending else None):
                    packet = await channel.receive()
            except TimeoutError:
                continue
            except PacketBroken as error:
                await self._refuse(channel, error)
                raise
            if packet is None:
                return
            await self._answer(channel, packet)

    async def _answer(self, channel: Channel, packet: Packet) -> None:
        """Carry out one request; what makes no sense is answered and ends the connection."""
        owned = list(packet.fds)
        try:
            request = _request(packet)
            if isinstance(request, wire.Add):
                error = await self._add(request, owned)
            else:
                error = await self._carry_out(request)
        except (wire.WireError, ProtocolBroken) as fault:
            await self._refuse(channel, fault)
            raise
        finally:
            for fd in owned:
                os.close(fd)
        await channel.send(wire.encode_ack(wire.Ack(error)))

    async def _refuse(self, channel: Channel, fault: Exception) -> None:
        try:
            await channel.send(wire.encode_ack(wire.Ack(f"protocol error: {fault}")))
        except OSError as error:
            _log.info("istio-cni was not told that %s: %s", fault, error)

    async def _add(self, request: wire.Add, owned: list[int]) -> str:
        if request.info is None:
            raise ProtocolBroken(f"a pod without workload_info: {request.uid}")
        if not request.uid:
            raise ProtocolBroken("a pod without a uid")
        self._roster.add(request.uid)
        held = Held(request.info, owned.pop())
        try:
            error = await self._try(request.uid, held, ANSWER_S)
        except BaseException:
            held.close()
            raise
        former = self._settle(request.uid, held, error)
        if former is not None:
            former.close()
        if error:
            _log.error("%s (%s) is not taken: %s", "/".join(held.pod[:2]), request.uid, error)
        return error

    def _settle(self, uid: str, held: Held, error: str) -> Held | None:
        """Keep what was not taken; return what nobody needs any more."""
        if error:
            return self._roster.failed(uid, held, error)
        former = self._roster.taken(uid)
        if former is not held:
            held.close()
        return former

    async def _carry_out(self, request: wire.Keep | wire.Delete | wire.SnapshotSent) -> str:
        if isinstance(request, wire.Keep):
            self._roster.keep(request.uid)
            return ""
        if isinstance(request, wire.Delete):
            held = self._roster.delete(request.uid)
            if held is not None:
                held.close()
            return await self._within(self._pods.release(request.uid), ANSWER_S)
        async with asyncio.timeout(ANSWER_S):
            known = await self._pods.known()
        gone = self._roster.snapshot(known)
        self._is_sound = True
        if gone:
            _log.info("%d pods are not in the snapshot and are let go", len(gone))
        return await self._within(self._release_all(gone), ANSWER_S)

    async def _release_all(self, uids: list[str]) -> None:
        faults = []
        for uid in uids:
            try:
                await self._pods.release(uid)
            except ZproxyError as error:
                faults.append(f"{uid}: {error}")
        if faults:
            raise EnrollError("; ".join(faults))

    def _is_round_due(self) -> bool:
        return bool(self._roster.pending) and asyncio.get_running_loop().time() >= self._next_round

    async def _try_again(self) -> None:
        """Try to take what is pending, the longest untried first, for as long as a round may last."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + ROUND_S
        for uid, held in list(self._roster.pending.items()):
            if loop.time() >= ends:
                break
            self._roster.pending.pop(uid)  # it comes last in the next round
            self._roster.pending[uid] = held
            error = await self._try(uid, held, ROUND_S)
            former = self._settle(uid, held, error)
            if former is not None:
                former.close()
                _log.info("%s (%s) is taken now", "/".join(held.pod[:2]), uid)
        self._next_round = loop.time() + RETRY_S

    async def _try(self, uid: str, held: Held, seconds: float) -> str:
        """Return why a pod was not taken, "" when it was."""
        if held.task is None:
            held.task = self._spawn(self._pods.take(uid, held.pod, os.dup(held.fd)))
        await asyncio.wait({held.task}, timeout=seconds)
        if not held.task.done():
            return "it takes long, and is still under way"
        task, held.task = held.task, None
        return _outcome(task)

    async def _within(self, work: Coroutine[Any, Any, None], seconds: float) -> str:
        """Return what went wrong, "" when nothing did; what takes longer goes on."""
        task = self._spawn(work)
        await asyncio.wait({task}, timeout=seconds)
        return _outcome(task) if task.done() else "it takes long, and is still under way"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin what is carried through whoever waits for it: an enrolment must not end half way."""
        task = spawn(work, "zds")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(_look)
        return task


def _request(packet: Packet) -> wire.Request:
    request = wire.decode(packet.data)
    wanted = 1 if isinstance(request, wire.Add) else 0
    if len(packet.fds) != wanted:
        raise ProtocolBroken(
            f"{type(request).__name__} comes with {wanted} descriptors, not {len(packet.fds)}"
        )
    return request


def _outcome(task: "asyncio.Task[None]") -> str:
    if task.cancelled():
        return "zproxy is shutting down"
    error = task.exception()
    if error is None:
        return ""
    if isinstance(error, ZproxyError | OSError):
        return str(error) or type(error).__name__
    _log.error("internal error", exc_info=error)
    return f"internal error: {error}"


def _look(task: "asyncio.Task[None]") -> None:
    """Take note of how a task ended: nobody may be waiting for it any more."""
    if not task.cancelled():
        task.exception()
