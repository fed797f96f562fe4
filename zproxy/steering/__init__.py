"""eBPF steering: compile, load, pin, attach, and read the maps back.

Only loader.py imports bcc, and only in a short-lived child: bcc costs about 110 MB of memory."""
