"""The `zproxy` command."""
