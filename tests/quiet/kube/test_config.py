"""Files that are no kubeconfig are said to be none, in words of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_net.errors import NoKubeconfig
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
