"""`ktctl version`."""

from __future__ import annotations

import platform

import typer

from kt_cli import flags
from kt_cli.output import Printer


def version(context: typer.Context, output: flags.Output = None) -> None:
    """Say which version this is."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        number = installed("ktnet")
    except PackageNotFoundError:
        number = "not installed"
    given = flags.of(context).merged(output=output)
    Printer("version", given.form).result(
        f"ktctl {number} (Python {platform.python_version()}, {platform.system()} {platform.machine()})",
        version=number,
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
    )
