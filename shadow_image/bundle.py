"""Packs the agent into one zip file that `python3 -I` runs. Runs on the developer's machine.

The same sources give the same octets, so that client and agent can be compared by digest.

Not here: how it gets into the cluster (kt_net.choreography).
"""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from importlib.resources.abc import Traversable

#: Far below a ConfigMap's 1 MiB (Kubernetes doc, "ConfigMaps").
MAX_BUNDLE_OCTETS = 300 * 1024

#: Package -> its modules, or None for all; what the agent may use of kt_net (import-linter holds it to that).
CONTENT: dict[str, tuple[str, ...] | None] = {
    "kt_net": ("__init__.py", "addr.py", "errors.py"),
    "kt_net.choreography": ("__init__.py", "edits.py", "names.py", "ownership.py", "records.py"),
    "kt_net.tunnel": None,
    "shadow_image": None,
}
#: zip cannot say "no time"; this is its earliest.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = b"import sys\nfrom shadow_image.__main__ import main\nsys.exit(main())\n"


def build_zipapp() -> bytes:
    """The agent as one file, at most `MAX_BUNDLE_OCTETS`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        _add(archive, "__main__.py", _MAIN)
        for package, names in CONTENT.items():
            folder = package.replace(".", "/")
            for file in _sources(resources.files(package)):
                if names is None or file.name in names:
                    _add(archive, f"{folder}/{file.name}", file.read_bytes())
    return buffer.getvalue()


def _sources(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".py")), key=lambda file: file.name)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, whatever this machine is
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)
