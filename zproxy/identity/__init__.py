"""Certificates: the embedded CA, and the manager that keeps one current certificate per identity."""
