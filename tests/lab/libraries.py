"""Pure Python libraries that the samples and their callers in pods use, as a zip file: images of Python have none.

Not here: what they are used for (samples/h2c.py, samples/chat.py).
"""

from __future__ import annotations

import functools
import importlib.util
import io
import zipfile
from pathlib import Path

FILE = "libraries.zip"
#: HTTP/2, and WebSockets with threads; what else is in the latter's package needs the event loop, or a terminal.
_PACKAGES = ("h2", "hpack", "hyperframe", "websockets", "websockets/sync", "websockets/extensions")


@functools.cache
def archive() -> bytes:
    """The zip file, the same octets each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for package in _PACKAGES:
            for file in sorted(_folder(package).glob("*.py")):
                entry = zipfile.ZipInfo(f"{package}/{file.name}")
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, file.read_bytes())
    return out.getvalue()


def _folder(package: str) -> Path:
    top, _, below = package.partition("/")
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{top} is not installed: run make .venv/.installed")
    return Path(found.origin).parent / below
