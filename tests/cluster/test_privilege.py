"""What runs as whom while connected, shown from /proc: only the helper has root, whoever started it and however.

The user lives in a mount namespace inside the laptop's; his credentials come from a plugin, which writes down who it is.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kt_net.host.helper import PROTOCOL
from tests.cluster.backend import LabBackend, wait_nothing_of_ours
from tests.cluster.ktctl import Ktctl
from tests.net.people import NAME, NOBODY_KNOWS, ROOT, UID, as_user, ktctl, move_in

#: Written by the plugin: its own state, its environment.
PLUGIN = """#!/bin/sh
cat /proc/self/status > {folder}/plugin.status
env > {folder}/plugin.env
exec cat {folder}/credentials
"""
NOTHING = "0000000000000000"


class PersonBackend(LabBackend):
    """The lab's laptop with a user on it, who runs everything."""

    def __init__(self, lab: LabBackend, how: str, folder: Path) -> None:
        self.lab = lab.lab
        self.kubeconfig = lab.kubeconfig
        self.python_image = lab.python_image
        self._how = how
        self._folder = folder
        folder.mkdir()
        (folder / "config").write_text(json.dumps(self._config()))

    def laptop_argv(self, command: list[str]) -> list[str]:
        code = (
            f"import json, sys; sys.path.insert(0, {str(ROOT)!r}); from tests.cluster.test_privilege import enter;"
            "enter(*json.loads(sys.argv[1]))"
        )
        words = json.dumps([self._how, str(self._folder), command])
        return self.lab.laptop_argv(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code, words]
        )

    def _config(self) -> dict[str, Any]:
        """The administrator's kubeconfig, without a file of root's, and with a plugin for the certificate."""
        config: dict[str, Any] = json.loads(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = Path(cluster.pop("certificate-authority")).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        credentials = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {
                "clientCertificateData": Path(user["client-certificate"]).read_text(),
                "clientKeyData": Path(user["client-key"]).read_text(),
            },
        }
        (self._folder / "credentials").write_text(json.dumps(credentials))
        plugin = self._folder / "plugin"
        plugin.write_text(PLUGIN.format(folder=self._folder))
        plugin.chmod(0o755)
        config["users"][0]["user"] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        }
        return config


def enter(how: str, name: str, command: list[str]) -> None:
    """In the namespace: become the user, and run what he runs."""
    folder = Path(name)
    home = move_in(folder)
    uid = NOBODY_KNOWS if how == "sudo by nobody known" else UID
    (home / ".kube").mkdir()
    (folder / "config").rename(home / ".kube" / "config")
    for path in (folder, home, home / ".kube", home / ".kube" / "config", folder / "credentials"):
        os.chown(path, uid, uid)
    rules = {
        "sudo": f"{NAME} ALL=(ALL) NOPASSWD: ALL\n",
        "rule": f'{NAME} ALL=(root) NOPASSWD: /usr/local/libexec/ktctl-helper-{PROTOCOL} ""\n',
    }
    rule = Path("/etc/sudoers.d/test")
    rule.write_text(rules.get(how, ""))
    rule.chmod(0o440)
    own = ["env", "-u", "KT_HOME", "-u", "KUBECONFIG", f"HOME={home}"]
    if how == "rule":
        subprocess.run([ktctl(), "helper", "install", "--user", NAME], check=True, stdout=subprocess.DEVNULL)
        words = as_user(*own, *command)
    elif how == "sudo":
        words = as_user(*own, "sudo", "-n", "--", *command)
    else:  # sudo itself refuses those whom it does not know; others that set the same variables do not
        words = [*own, f"SUDO_UID={uid}", f"SUDO_GID={uid}", *command]
    os.execvp(words[0], words)


def status(pid: int, thread: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def descendants(pid: int) -> Iterator[tuple[int, list[str]]]:
    """The process and all below it, with their command lines."""
    yield pid, Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    for thread in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
            yield from descendants(int(child))


def find_client(pid: int) -> int:
    """Python that runs ktctl."""
    found = [one for one, words in descendants(pid) if "python" in words[0] and words[1] == ktctl()]
    assert len(found) == 1, list(descendants(pid))
    return found[0]


def roots_files(pid: int) -> list[str]:
    """Open files, devices and sockets that root has made; pipes, /dev/null and what procfs has of a process that was root are nothing."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            seen, name = os.stat(f"/proc/{pid}/fd/{number}"), os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if seen.st_uid == 0 and not stat.S_ISFIFO(seen.st_mode) and not re.match("/dev/null|anon_inode:|/proc/", name):
            found.append("socket" if stat.S_ISSOCK(seen.st_mode) else name)
    return sorted(found)


@contextmanager
def connected(lab: LabBackend, how: str, folder: Path) -> Iterator[Ktctl]:
    with Ktctl(PersonBackend(lab, how, folder), "connect", "--image", lab.python_image) as running:
        running.wait_ready()
        yield running
    assert running.process.returncode == 0, "it has undone everything"


@pytest.mark.parametrize("how", ["rule", "sudo", "sudo by nobody known"])
def test_only_the_helper_has_root(lab: LabBackend, how: str, tmp_path: Path) -> None:
    uid = NOBODY_KNOWS if how == "sudo by nobody known" else UID
    resolv = lab.lab.laptop_file("resolv.conf")
    before = resolv.read_text()
    folder = tmp_path / "people"
    with connected(lab, how, folder) as running:
        assert "198.19.255" in resolv.read_text()
        client = find_client(running.process.pid)
        threads = [status(client, int(thread)) for thread in os.listdir(f"/proc/{client}/task")]
        files = roots_files(client)
        helpers = [
            (one, words)
            for one, words in descendants(client)
            if words[0] != "sudo" and any("helper" in word for word in words)
        ]
        assert helpers, "no helper"
        assert all(status(one, one)["Uid"] == "0 0 0 0" for one, _ in helpers)
        installed = [f"/usr/local/libexec/ktctl-helper-{PROTOCOL}" in words for _, words in helpers]
    assert len(threads) > 1, "nothing is shown of threads"
    same = " ".join([str(uid)] * 4)
    for one in threads:
        assert (one["Uid"], one["Gid"]) == (same, same)
        assert one["Groups"] in ("", str(uid))
        assert (one["CapPrm"], one["CapEff"], one["CapAmb"], one["CapInh"]) == (NOTHING,) * 4
    assert set(installed) == {how == "rule"}
    # The device, and behind sudo the socket to the helper, which was there before.
    assert files == ["/dev/net/tun"] + ["socket"] * (how != "rule")
    plugin = (folder / "plugin.status").read_text()
    assert re.search(rf"^Uid:\s{uid}\s{uid}\s{uid}\s{uid}$", plugin, re.MULTILINE)
    assert re.search(rf"^CapEff:\s{NOTHING}$", plugin, re.MULTILINE)
    environment = (folder / "plugin.env").read_text()
    assert f"HOME={folder}/home\n" in environment
    assert "SUDO_" not in environment
    assert "root" not in re.findall("^(?:USER|LOGNAME)=(.*)$", environment, re.MULTILINE)
    limit = time.monotonic() + 5
    while resolv.read_text() != before:
        assert time.monotonic() < limit
        time.sleep(0.05)
    wait_nothing_of_ours(lab)


def test_by_sudo_one_finds_ones_own_connection(lab: LabBackend, tmp_path: Path) -> None:
    """`sudo ktctl connect` becomes the caller, and so do the others: they look where that one is."""
    folder = tmp_path / "people"

    def by_sudo(client: int, *words: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", f"--target={client}", "--mount", "--net", f"--wdns={os.getcwd()}"]
        own = ("env", "-u", "KT_HOME", "-u", "KUBECONFIG", f"HOME={folder}/home", "sudo", "-n", "--", ktctl(), *words)
        return subprocess.run([*inside, *as_user(*own)], capture_output=True, text=True, check=False, timeout=60)

    with connected(lab, "sudo", folder) as running:
        client = find_client(running.process.pid)
        assert by_sudo(client, "status").stdout.startswith("connected to lab")
        assert by_sudo(client, "dns", "echo").returncode == 0
        ended = by_sudo(client, "disconnect")
        assert (ended.returncode, "the running connection has ended" in ended.stdout) == (0, True), ended
        running.wait_ended()
    wait_nothing_of_ours(lab)
