"""One lab: its name, its addresses, its folders. Two instances share nothing but built programs and images.

Not here: making any of it.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

#: Which lab; two checkouts with the same name share one.
ENVIRONMENT = "KTNET_LAB"
DEFAULT = "default"
#: A name becomes a folder that `down` removes: nothing that leads out of it, or to the folder of all labs.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

SOURCE = Path(__file__).parent


def cache_folder() -> Path:
    """Per user, outside every checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ktnet-lab"


@dataclass(frozen=True)
class Instance:
    """Names and addresses of one lab; `number` makes them differ from another's.

    Ranges inside the cluster need not differ between instances: nothing outside the node sees them. For somebody who is connected to two at
    once `ranges` makes them.
    """

    name: str
    number: int
    ranges: int = 0

    @classmethod
    def chosen(cls) -> Instance:
        """The one that the environment names; set but empty counts as not set.

        Raises:
            LabError: it is not a name.
        """
        name = os.environ.get(ENVIRONMENT) or DEFAULT
        if not _NAME.fullmatch(name):
            raise LabError(f"{ENVIRONMENT}={name!r} is no name of a lab: small letters, digits and hyphens, at most 31")
        return cls(name, 0 if name == DEFAULT else zlib.crc32(name.encode()) % 200 + 1)

    @property
    def state(self) -> Path:
        """Folder of everything that one run makes."""
        return cache_folder() / "run" / self.name

    @property
    def lock(self) -> Path:
        """Held while the lab is brought up or down."""
        return cache_folder() / "run" / f"{self.name}.lock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; reaches the API server from the laptop and from this machine."""
        return self.state / "admin.conf"

    # Network namespaces.

    @property
    def node(self) -> str:
        """Namespace of the node."""
        return f"ktlab{self.number}-node"

    @property
    def laptop(self) -> str:
        """Namespace of the client under test."""
        return f"ktlab{self.number}-laptop"

    @property
    def world(self) -> str:
        """Namespace of the rest of the world."""
        return f"ktlab{self.number}-world"

    # Links: (this machine | laptop | world) to the node, and laptop to world. The first of a link is .1.

    def link4(self, link: int, end: int) -> str:
        """IPv4 address of an end (1 or 2) of a link (0 machine-node, 1 laptop-node, 2 laptop-world, 3 node-world)."""
        return f"10.{77 + link}.{self.number}.{end}"

    def link6(self, link: int, end: int) -> str:
        """IPv6 address, likewise."""
        return f"fd{77 + link}:{self.number:x}::{end}"

    @property
    def api4(self) -> str:
        """The API server."""
        return self.link4(0, 2)

    @property
    def api6(self) -> str:
        """The API server."""
        return self.link6(0, 2)

    @property
    def world4(self) -> str:
        """The world's DNS and HTTP server, as the laptop sees it."""
        return self.link4(2, 1)

    @property
    def services(self) -> str:
        """Ranges of Services."""
        return f"10.{97 + self.ranges}.0.0/16,fd00:{97 + self.ranges}::/112"

    @property
    def pods(self) -> str:
        """Ranges of pods."""
        return f"10.{245 + self.ranges}.0.0/16,fd00:{245 + self.ranges}::/56"

    @property
    def pods4(self) -> str:
        """The node's."""
        return f"10.{245 + self.ranges}.0.0/24"

    @property
    def pods6(self) -> str:
        """The node's."""
        return f"fd00:{245 + self.ranges}::/64"

    @property
    def api_service(self) -> tuple[str, str]:
        """Addresses of the Service `kubernetes`: the first of their ranges."""
        return f"10.{97 + self.ranges}.0.1", f"fd00:{97 + self.ranges}::1"

    @property
    def cluster_dns(self) -> str:
        """Address of the Service `kube-dns`."""
        return f"10.{97 + self.ranges}.0.10"

    @property
    def cni_network(self) -> str:
        """Name of the CNI network; pods of this instance are found by it."""
        return f"ktlab{self.number}"
