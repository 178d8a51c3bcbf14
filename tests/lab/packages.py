"""Debian packages that the lab and the net tier need; installs what is missing, as root, and says what.

Not here: Go and Python packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab.commands import run, say
from tests.lab.errors import LabError
from tests.lab.instance import cache_folder

#: package -> a file that it brings.
PACKAGES = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "nftables": "/usr/sbin/nft",
    "conntrack": "/usr/sbin/conntrack",
    "buildah": "/usr/bin/buildah",
    "busybox-static": "/bin/busybox",
    "redis-server": "/usr/bin/redis-server",
    "redis-tools": "/usr/bin/redis-cli",
    "openssl": "/usr/bin/openssl",
    "iproute2": "/usr/sbin/ip",
    "iputils-ping": "/bin/ping",
    "curl": "/usr/bin/curl",
    "iperf3": "/usr/bin/iperf3",
    "bind9-dnsutils": "/usr/bin/dig",
    "dbus-daemon": "/usr/bin/dbus-daemon",
    "libsystemd-shared": "/usr/share/doc/libsystemd-shared/copyright",  # with it comes what systemd-resolved needs
    "musl-tools": "/usr/bin/musl-gcc",
    "python3": "/usr/bin/python3",
    "util-linux": "/usr/bin/nsenter",
    "sudo": "/usr/bin/sudo",
}


def unpacked(*packages: str) -> Path:
    """A folder in the cache with the files of packages that would change this machine when they were installed.

    Raises:
        LabError: they cannot be downloaded.
    """
    folder = cache_folder() / "packages" / "-".join(packages)
    if folder.exists():
        return folder
    made = folder.with_name(f"{folder.name}.{os.getpid()}")
    made.mkdir(parents=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-q", "download", *packages]):
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=made)
        if result.returncode:
            raise LabError(f"{' '.join(command)} failed: {result.stderr[-1500:]}")
    for archive in made.glob("*.deb"):
        run("dpkg", "-x", archive, made)
        archive.unlink()
    made.rename(folder)
    return folder


def missing() -> list[str]:
    """Packages whose file is not there."""
    return [package for package, file in PACKAGES.items() if not Path(file).exists()]


def install() -> None:
    """Install what is missing.

    Raises:
        LabError: not root, no apt, or it failed.
    """
    wanted = missing()
    if not wanted:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"these Debian packages are needed: {' '.join(wanted)}; run as root on Debian, or install them")
    say(f"installing Debian packages: {' '.join(wanted)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "--no-install-recommends", *wanted]):
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if result.returncode:
            raise LabError(f"{' '.join(command)} failed: {result.stderr[-1500:]}")
