"""Connects that are under way when a pod is enrolled: zp_begun, which lets them go on in the clear.

Like every connection that stands, such a connect() is not taken out of the app's hands: it is not steered,
and its SYN may be repeated until there is an answer.
"""

import time

from zproxy.net import netlink
from zproxy.net.netns import Netns
from zproxy.steering import syscall
from zproxy.steering.layout import COOKIE, FLOW, TUPLE_KEY, pack_ip
from zproxy.steering.objects import Objects


def note(objects: Objects, netns: Netns, cookie: int) -> None:
    """Note every connect() of a pod that has had no answer yet; raise OSError.

    To be called when the pod has just been switched on. What it finds of later connects is steered, travels
    over lo, and makes no difference.
    """
    now = COOKIE.pack(cookie=time.monotonic_ns())
    for source, destination in netns.run(netlink.dialling):
        flow = FLOW.pack(
            src_ip=pack_ip(source.ip),
            dst_ip=pack_ip(destination.ip),
            src_port=source.port,
            dst_port=destination.port,
        )
        syscall.map_update(objects.maps["zp_begun"], TUPLE_KEY.pack(netns=cookie, flow=flow), now)


def forget(objects: Objects, cookie: int) -> None:
    """Delete what is noted of one pod."""
    whose = COOKIE.pack(cookie=cookie)
    for key in [key for key, _ in objects.elements("zp_begun") if key.startswith(whose)]:
        syscall.map_delete(objects.maps["zp_begun"], key)
