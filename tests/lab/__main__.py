"""`python -m tests.lab COMMAND`: see --help."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from tests.lab import packages
from tests.lab.build import binaries
from tests.lab.cluster import Lab
from tests.lab.errors import LabError
from tests.lab.images import archives


def main() -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="A real Kubernetes to test against.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start it (builds what is missing first)"),
        ("down", "stop it and leave nothing"),
        ("status", "say what runs"),
        ("shell", "a shell in the laptop"),
        ("packages", "install the Debian packages that are missing"),
        ("build", "build the programs"),
        ("images", "build the images"),
    ):
        commands.add_parser(name, help=text)
    for name, text in (("kubectl", "kubectl as administrator"), ("laptop", "run a program in the laptop")):
        commands.add_parser(name, help=text, add_help=False).add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        return _run(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    lab = Lab()
    match options.command:
        case "up":
            lab.up()
        case "down":
            lab.down()
            return 1 if lab.left() else 0
        case "status":
            print(f"{lab.instance.name}: {'up' if lab.is_up() else 'down'}")
            for name in lab.processes.alive():
                print(f"  {name} {lab.pid(name)}")
            for left in [] if lab.is_up() else lab.left():
                print(f"  left: {left}")
        case "packages":
            packages.install()
        case "build":
            print(binaries())
        case "images":
            print(*archives(), sep="\n")
        case "kubectl":
            rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
            _become([str(binaries() / "kubectl"), f"--kubeconfig={lab.kubeconfig}", *rest])
        case "laptop" | "shell":
            rest = options.rest if options.command == "laptop" else [os.environ.get("SHELL", "/bin/sh")]
            _become(lab.laptop_argv(rest[1:] if rest[:1] == ["--"] else rest))
    return 0


def _become(command: list[str]) -> NoReturn:
    """Be that program: signals and exit code are its own."""
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
