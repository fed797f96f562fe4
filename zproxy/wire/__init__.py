"""Protocol machines: bytes and events in, bytes and events out.

TLS sessions over memory, and HTTP/2 connections that carry CONNECT streams. Nothing here opens a socket,
waits, reads a clock or logs: drivers in other packages do, and every rule here can be tested in memory.
"""
