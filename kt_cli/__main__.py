"""`python -m kt_cli`."""

from kt_cli.entry import run

run()
