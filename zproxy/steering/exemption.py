"""The proxy's own sockets, marked as exempt from steering."""

import ctypes
import errno
import os
import struct
import threading

from zproxy.errors import SteeringError
from zproxy.steering.layout import ENABLED
from zproxy.steering.syscall import ATTR_SIZE, BPF_SYSCALL, Command


class Exemption:
    """Writes zp_exempt, a socket's own storage, through its descriptor: nobody without the map can forge it.

    Called for each connection that the proxy opens, so the buffers are made once and the call holds the GIL
    (it takes 2 us and never blocks). All workers share it: the lock keeps one's descriptor in the buffer
    until the kernel has read it.
    """

    __slots__ = ("_address", "_attr", "_call", "_key", "_lock", "_value")

    def __init__(self, map_fd: int) -> None:
        self._lock = threading.Lock()
        self._key = ctypes.c_int(-1)
        self._value = ctypes.create_string_buffer(ENABLED, len(ENABLED))
        key_at, value_at = ctypes.addressof(self._key), ctypes.addressof(self._value)
        attr = struct.pack("=IIQQQ", map_fd, 0, key_at, value_at, 0)
        self._attr = ctypes.create_string_buffer(attr, ATTR_SIZE)
        self._address = ctypes.addressof(self._attr)
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)

    def __call__(self, fd: int) -> None:
        """Exempt the socket behind `fd` for life; raise SteeringError when the kernel refuses."""
        with self._lock:
            self._key.value = fd
            result = self._call(BPF_SYSCALL, Command.MAP_UPDATE_ELEM, self._address, ATTR_SIZE)
        if result < 0:
            code = ctypes.get_errno()  # the calling thread's own
            hint = "; raise net.core.optmem_max" if code == errno.ENOMEM else ""
            raise SteeringError(
                f"cannot exempt a socket of the proxy from steering: {os.strerror(code)}{hint}"
            )
