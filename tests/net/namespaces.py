"""Network (and mount) namespaces of a test's own: everything that a net test changes is changed in one.

`run_inside` runs a function of a test module in a child process that has its own namespaces; what it returns comes back as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

#: resolv.conf and the helper's state are the child's own; /sys is left alone.
_SETUP = """set -e
ip link set lo up
mkdir -p "$1/etc"
printf 'nameserver 192.0.2.53\\nsearch corp.test\\n' > "$1/etc/resolv.conf"
mount --bind "$1/etc/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"""


def run_inside(function: Callable[..., Any], folder: object, *arguments: Any, seconds: float = 60) -> Any:
    """Run `function(*arguments)` in namespaces of its own; what it returned."""
    code = (
        f"import json, sys; from {function.__module__} import {function.__name__} as f;"
        "print(json.dumps(f(*json.loads(sys.argv[1]))))"
    )
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _SETUP, "sh", str(folder)]
    result = subprocess.run(
        [*command, sys.executable, "-c", code, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])
