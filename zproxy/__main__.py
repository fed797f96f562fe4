"""`python -m zproxy` is the `zproxy` command."""

from zproxy_cli.main import main

main()
