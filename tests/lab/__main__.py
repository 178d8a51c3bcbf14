"""`python -m tests.lab COMMAND`: see --help."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

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
            rest = [word for word in options.rest if word != "--"] if options.rest[:1] == ["--"] else options.rest
            return subprocess.run(
                [binaries() / "kubectl", f"--kubeconfig={lab.kubeconfig}", *rest], check=False
            ).returncode
        case "laptop" | "shell":
            rest = options.rest if options.command == "laptop" else [os.environ.get("SHELL", "/bin/sh")]
            rest = rest[1:] if rest[:1] == ["--"] else rest
            return subprocess.run(lab.laptop_argv(rest), check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
