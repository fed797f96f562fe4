"""zproxy: a node proxy for ambient meshes, with eBPF steering and HBONE between pods."""

__version__ = "0.1.0"
