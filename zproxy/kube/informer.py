"""Keeps a ledger as the API server has it: a list, then a watch from there, for as long as the daemon lives.

Whatever ends a watch (the server's own limit, a dropped connection, silence), the next one goes on from the
last version that was heard of, so that no change is lost; where the server has forgotten that version a list
comes first, and what is gone since is found by its absence. Until then everything stays as it was.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from zproxy.kube.backoff import Backoff
from zproxy.kube.ledger import Expired, Kind, Ledger, NoList, Page, WatchFailed
from zproxy.kube.lines import LineSplitter, LineTooLong
from zproxy.net.tasks import in_thread
from zproxy.sources.pace import Pace

T = TypeVar("T")

PAGE: Final = 100
"""Objects of one page: what json.loads takes, all threads wait for."""
WATCH_S: Final = (240, 480)
"""How long a watch may last; the server ends it. Drawn anew each time, so that nodes spread out."""
SHORT_S: Final = 1.0
"""A watch that brings nothing and ends sooner counts as a failure: else it would be tried without end."""
RESTARTS: Final = 5
"""How often a list may begin again because the server has forgotten its pages, before that is a failure."""
PATIENCE: Final = 5
"""Failures in a row after which a list comes first: a server that was restored from a backup may refuse a
version that it has yet to come to, and say so in other words than "gone"."""

_log = logging.getLogger("zproxy.kube")


class ApiFailed(Exception):
    """The API server could not be reached, or refused; a sentence, and how long it asks us to wait."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class NotThere(Exception):
    """The object is gone, or another one has its name by now."""


class Api(Protocol):
    """The few calls of the API that are used; all raise ApiFailed, and Expired for "410 Gone"."""

    async def get(self, path: str, query: Mapping[str, str], *, only_metadata: bool = False) -> bytes:
        """Return the body of an answer."""

    def watch(
        self, path: str, query: Mapping[str, str], *, only_metadata: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a body that goes on; ends when the server ends it, or is silent for long."""

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Merge `body` into an object; raise NotThere, too."""


class Informer(Generic[T]):
    """Lives on the event loop. `run` is its whole life; `on_change` is called there after each change."""

    def __init__(
        self, kind: Kind[T], api: Api, on_change: Callable[[], None], backoff: Backoff | None = None
    ) -> None:
        self.ledger = Ledger(kind)
        self._kind = kind
        self._api = api
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._failing_since: float | None = None
        self._failures = 0

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if not self.ledger.version:
                    await self._list()
                await self._watch()
            except Expired as error:
                _log.info("%s: listed again, the watch cannot go on: %s", self._kind.name, error)
                self.ledger.forget_version()
            except (ApiFailed, NoList, WatchFailed) as error:
                await self._wait(error)
            except Exception as error:  # whatever it is, the mesh must not go stale for ever
                _log.exception("%s: stumbled, and begins anew with a list", self._kind.name)
                self.ledger.forget_version()
                await self._wait(error)

    async def _wait(self, error: Exception) -> None:
        if self._failing_since is None:
            self._failing_since = monotonic()
            _log.warning("%s: %s; what is known stays, and it is tried again", self._kind.name, error)
        self._failures += 1
        if self._failures % PATIENCE == 0:
            self.ledger.forget_version()
        await asyncio.sleep(self._backoff.wait_s(getattr(error, "wait_s", 0.0)))

    def _went_well(self) -> None:
        self._backoff.reset()
        self._failures = 0
        if self._failing_since is not None:
            _log.info("%s: heard again after %.0f s", self._kind.name, monotonic() - self._failing_since)
            self._failing_since = None

    async def _list(self) -> None:
        for _ in range(RESTARTS):
            try:
                objects, version = await self._pages()
            except Expired:
                continue  # the state that its pages came from is gone; the next one is newer
            self._went_well()
            if self.ledger.replace(objects, version):
                self._on_change()
            return
        raise ApiFailed("the server forgets its lists before they are read to the end")

    async def _pages(self) -> tuple[dict[str, T], str]:
        objects: dict[str, T] = {}
        more = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": more} if more else {})
            page = await self._page(query)
            objects |= page.objects
            more = page.more
            if not more:
                return objects, page.version

    async def _page(self, query: Mapping[str, str]) -> Page[T]:
        body = await self._api.get(self._kind.path, query, only_metadata=self._kind.only_metadata)
        page = await in_thread(lambda: self.ledger.read_page(body, Pace()))
        for fault in page.unreadable:
            self._complain(fault)
        return page

    async def _watch(self) -> None:
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.ledger.version,
            "timeoutSeconds": str(random.randint(*WATCH_S)),  # noqa: S311 - spreads load, guards nothing
        }
        began, splitter, heard = monotonic(), LineSplitter(), False
        stream = self._api.watch(self._kind.path, query, only_metadata=self._kind.only_metadata)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                heard = self._take(splitter, chunk) or heard
                await asyncio.sleep(0)  # a buffer that is full never lets others run
        if not heard and monotonic() - began < SHORT_S:
            raise WatchFailed("a watch ended as soon as it began")
        self._went_well()

    def _take(self, splitter: LineSplitter, chunk: bytes) -> bool:
        """Apply the events that are complete now; return whether there were any."""
        is_news = False
        try:
            lines = splitter.feed(chunk)
            for line in lines:
                changed, fault = self.ledger.apply(line)
                is_news = changed or is_news
                if fault:
                    self._complain(fault)
        except LineTooLong as error:
            raise WatchFailed(str(error)) from error
        finally:
            if is_news:
                self._on_change()
        if lines:
            self._went_well()
        return bool(lines)

    def _complain(self, fault: str) -> None:
        _log.warning("%s: left out, it cannot be read: %s", self._kind.name, fault)
