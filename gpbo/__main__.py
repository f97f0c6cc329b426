"""``python -m gpbo``: the command line."""

from gpbo.cli import main

main()
