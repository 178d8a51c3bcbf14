"""Builds the lab's images with buildah from Dockerfiles; nothing is pulled. Archives are kept per user.

Not here: getting them into containerd (cluster.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.lab import libraries, wrong_clock
from tests.lab.build import binaries
from tests.lab.commands import attempt, run, say
from tests.lab.errors import LabError
from tests.lab.instance import SOURCE, cache_folder

PYTHON = Path("/usr/bin/python3")
PREFIX = "docker.io/ktnet-lab"
#: In the order in which they build on each other.
NAMES = ("python", "pause", "coredns", "redis", "samples", "late")


def reference(name: str) -> str:
    """The full name of an image of ours."""
    return f"{PREFIX}/{name}:1"


def archives() -> list[Path]:
    """Archives of all images; builds them when they are not there.

    Raises:
        LabError: a build failed.
    """
    folder = cache_folder() / "images" / _key()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _build_all(folder)
    return [folder / f"{name}.tar" for name in NAMES]


def _key() -> str:
    digest = hashlib.sha256(str(binaries()).encode())
    digest.update(run(PYTHON, "--version").encode())
    digest.update(Path(__file__).read_bytes())
    digest.update(libraries.archive())
    digest.update(wrong_clock.off_by(wrong_clock.SECONDS).encode())
    for file in sorted([*(SOURCE / "images").rglob("*"), *(SOURCE / "samples").rglob("*.py")]):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build_all(folder: Path) -> None:
    beside = folder.with_suffix(".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    storage = beside / "storage"
    try:
        for name in NAMES:
            say(f"building image {name}")
            context = beside / f"context-{name}"
            shutil.copytree(SOURCE / "images" / name, context)
            ROOTS[name](context / "rootfs")
            _buildah(storage, name, context, beside / f"{name}.tar")
            shutil.rmtree(context)
    finally:
        for mount in re.findall(rf"\S+ ({re.escape(str(storage))}\S*) ", Path("/proc/mounts").read_text()):
            attempt("umount", "-l", mount)
        shutil.rmtree(storage, ignore_errors=True)
    beside.rename(folder)


def _buildah(storage: Path, name: str, context: Path, archive: Path) -> None:
    common = ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs"]
    build = ["bud", "--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={reference('python')}"]
    env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    run(*common, *build, "-t", reference(name), context, env=env)
    run(*common, "push", reference(name), f"docker-archive:{archive}:{reference(name)}", env=env)


# -- what goes into them


def _python(root: Path) -> None:
    """Python, its library, the shared objects it loads, busybox as shell."""
    real = PYTHON.resolve()
    library = _standard_library()
    target = root / library.relative_to("/")
    shutil.copytree(
        library,
        target,
        ignore=shutil.ignore_patterns(
            "test", "tests", "idlelib", "tkinter", "lib2to3", "config-*", "__pycache__", "ensurepip"
        ),
        symlinks=False,
        ignore_dangling_symlinks=True,
    )
    _copy(root, real)
    (root / "usr/bin/python3").symlink_to(real.name)
    _libraries(root, [real, *(library / "lib-dynload").glob("*.so")])
    _busybox(root)
    for folder in ("etc", "proc", "sys", "dev", "var", "root"):
        (root / folder).mkdir(exist_ok=True)
    (root / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnobody:x:65534:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def _standard_library() -> Path:
    return Path(run(PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))").strip())


def _pause(root: Path) -> None:
    _copy(root, Path("/bin/busybox"), at="bin/busybox")


def _coredns(root: Path) -> None:
    _copy(root, binaries() / "coredns", at="coredns")


def _redis(root: Path) -> None:
    for program in ("redis-server", "redis-cli"):
        real = Path("/usr/bin", program).resolve()
        _copy(root, real, at=f"usr/local/bin/{program}")
        _libraries(root, [real])


def _samples(root: Path) -> None:
    for file in (SOURCE / "samples").glob("*.py"):
        _copy(root, file, at=f"samples/{file.name}")
    (root / "samples" / libraries.FILE).write_bytes(libraries.archive())


def _late(root: Path) -> None:
    file = root / (_standard_library() / wrong_clock.FILE).relative_to("/")
    file.parent.mkdir(parents=True)
    file.write_text(wrong_clock.off_by(wrong_clock.SECONDS))


ROOTS = {
    "python": _python,
    "pause": _pause,
    "coredns": _coredns,
    "redis": _redis,
    "samples": _samples,
    "late": _late,
}


def _copy(root: Path, file: Path, at: str | None = None) -> None:
    target = root / (at or str(file).lstrip("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target)


def _busybox(root: Path) -> None:
    _copy(root, Path("/bin/busybox"), at="bin/busybox")
    for applet in ("sh", "ls", "cat", "sleep", "wget", "nc", "ping", "ip", "env", "id", "ps", "nslookup"):
        (root / "bin" / applet).symlink_to("busybox")


def _libraries(root: Path, files: list[Path]) -> None:
    """Everything that the loader would load for `files`."""
    seen: set[str] = set()
    for file in files:
        result = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        seen |= set(re.findall(r"(/\S+) \(0x", result.stdout))
    if not seen:
        raise LabError(f"no shared libraries found for {files[0]}; is it {sysconfig.get_platform()}?")
    for library in seen:
        _copy(root, Path(library))
