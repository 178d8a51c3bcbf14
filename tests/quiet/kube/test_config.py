"""Files that are no kubeconfig are said to be none, in words of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kt_net.errors import ApiUnreachable, NoKubeconfig
from kt_net.kube.api import HttpKubeApi
from kt_net.kube.config import load_cluster


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a name\n",
        "- a\n- list\n",
        "7",
        "null",
        "{",
        "contexts: 7\n",
        "contexts: [7]\ncurrent-context: x\n",
        "\x00",
        "a: b\n",
    ],
)
def test_garbage(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(NoKubeconfig) as error:
        load_cluster(kubeconfig=str(file))
    assert str(file) in error.value.what
    assert "object" not in error.value.why, "Python's words"


def kubeconfig(tmp_path: Path, server: str, **cluster: str) -> str:
    """A whole one."""
    words = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "config"
    file.write_text(json.dumps(words))
    return str(file)


@pytest.mark.parametrize(
    "server", ["https://[fd00::1:6443", "https://host:port", "https://host:99999", "host:6443", "https://", "ftp://x"]
)
def test_a_server_that_is_no_url(server: str, tmp_path: Path) -> None:
    with pytest.raises(NoKubeconfig, match=r"no URL|cannot be used"):
        load_cluster(kubeconfig=kubeconfig(tmp_path, server))


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("http://10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("user:secret@proxy", "http://user:secret@proxy"),
        ("socks5://127.0.0.1:1080", "a proxy of kind socks5 cannot be used"),
        ("https://proxy:3129", "https://proxy:3129"),
        ("http://user:secret@[fd00::1", "the proxy's address is none"),
        ("http://user:secret@:x", "the proxy's address is none"),
    ],
)
@pytest.mark.parametrize("by", ["environment", "kubeconfig"])
def test_proxies(written: str, found: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    cluster = load_cluster(kubeconfig=kubeconfig(tmp_path, "https://192.0.2.1:6443"))
    if by == "environment":
        monkeypatch.setenv("https_proxy", written)
    else:
        cluster.configuration.proxy = written
    if found.startswith("http"):
        assert cluster.proxy == found
        HttpKubeApi(cluster).close()
        return
    with pytest.raises(ApiUnreachable, match=found) as caught:
        HttpKubeApi(cluster)
    assert "secret" not in f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize(("exempt", "found"), [("192.0.2.1", None), ("other", "http://proxy:3128")])
def test_no_proxy(exempt: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment as it is when the kubeconfig is read."""
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", exempt)
    monkeypatch.setenv("NO_PROXY", exempt)
    assert load_cluster(kubeconfig=kubeconfig(tmp_path, "https://192.0.2.1:6443")).proxy == found


def test_the_kubeconfigs_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "192.0.2.1")
    file = kubeconfig(tmp_path, "https://192.0.2.1:6443", **{"proxy-url": "http://corp:3128"})
    assert load_cluster(kubeconfig=file).proxy == "http://corp:3128"
