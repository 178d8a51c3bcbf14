"""`python -m kt_cli`."""

from kt_cli.main import run

run()
