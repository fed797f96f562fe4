"""Notices from the kernel that something in a pod's namespace changed: one small netlink socket for each pod.

A notice only says that the pod is to be looked at. After the first one the socket is not read until that has
happened, so whoever makes a thousand changes a second inside a pod costs the daemon nothing but one look.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from zproxy.net import netlink
from zproxy.net.netns import Netns

_log = logging.getLogger("zproxy.node")


class Watches:
    """The watches of a node's pods, by cookie. Used on the event loop's thread only."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        """Call `tell` with a pod's cookie when something changed there, once until `rearm`."""
        self._tell = tell
        self._sockets: dict[int, socket.socket] = {}
        self._armed: set[int] = set()

    def __len__(self) -> int:
        return len(self._sockets)

    def __contains__(self, cookie: int) -> bool:
        return cookie in self._sockets

    def open(self, cookie: int, netns: Netns) -> None:
        """Watch a pod; one that cannot be watched is looked at every minute all the same."""
        try:
            self._sockets[cookie] = netns.run(netlink.open_watch)
        except OSError as error:
            _log.warning("changes in %s are found every minute only: %s", netns.path, error)
            return
        self._arm(cookie)

    def drain(self, cookie: int) -> None:
        """Forget what was said until now; BEFORE the pod is looked at, so that nothing later is missed."""
        watch = self._sockets.get(cookie)
        if watch is not None:
            netlink.drain(watch)

    def rearm(self, cookie: int) -> None:
        """Listen again, after the pod was looked at."""
        if cookie in self._sockets and cookie not in self._armed:
            self._arm(cookie)

    def close(self, cookie: int) -> None:
        """Watch a pod no longer, an open socket would keep its namespace; idempotent."""
        self._disarm(cookie)
        watch = self._sockets.pop(cookie, None)
        if watch is not None:
            watch.close()

    def keep(self, cookies: set[int]) -> None:
        """Close the watches of all other pods."""
        for cookie in self._sockets.keys() - cookies:
            self.close(cookie)

    def _arm(self, cookie: int) -> None:
        asyncio.get_running_loop().add_reader(self._sockets[cookie].fileno(), self._on_notice, cookie)
        self._armed.add(cookie)

    def _disarm(self, cookie: int) -> None:
        if cookie in self._armed:
            asyncio.get_running_loop().remove_reader(self._sockets[cookie].fileno())
            self._armed.discard(cookie)

    def _on_notice(self, cookie: int) -> None:
        self._disarm(cookie)
        self._tell(cookie)
