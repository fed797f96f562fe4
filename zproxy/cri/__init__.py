"""Pods of a container runtime, by the Container Runtime Interface: gRPC over the runtime's Unix socket."""
