"""Names, labels and annotations of our objects. KT Connect's are kept, so that its users and tools find them again.

Not here: the objects.
"""

from __future__ import annotations

import re
from typing import Final

from kt_net.errors import UsageFault

CONTROL_BY: Final = "control-by"
CONTROL_BY_KT: Final = "kt"
ROLE: Final = "kt-role"
TARGET: Final = "kt-target"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "ktctl"
#: What `kubectl -l` finds all of ours with.
SELECTOR: Final = f"{CONTROL_BY}={CONTROL_BY_KT}"

USER: Final = "kt-user"
#: Unix seconds; a real KT Connect takes an object for dead whose heart has not beaten for 5 minutes.
HEART_BEAT: Final = "kt-last-heart-beat"
#: Version of our records; a newer one than we know is refused, not guessed.
SCHEMA: Final = "kt-schema"
SCHEMA_VERSION: Final = "1"
#: How an object of the user was before we changed it, on that object (records.py).
RECORD: Final = "kt-record"
#: KT Connect's: the selector that a Service had before. Ours have it too, so that a real one judges them as it judges its own.
KT_SELECTOR: Final = "kt-selector"
#: KT Connect's, on one of its pods: what it has scaled or changed; and on a Service that it works on.
KT_CONFIG: Final = "kt-config"
KT_LOCK: Final = "kt-lock"
#: Under which name the API server notes which fields we have set (Kubernetes doc, "Server-Side Apply", field managers).
FIELD_MANAGER: Final = "ktctl"
#: The Lease's bounded summary for others to read.
SUMMARY: Final = "kt-summary"

ROLE_CONNECT: Final = "shadow-connect"
ROLE_PREVIEW: Final = "shadow-preview"
ROLE_EXCHANGE: Final = "shadow-exchange"
#: An administrator's ServiceAccount for agents that give back (deploy/restorer.yaml).
RESTORER: Final = "ktctl-restorer"
SHADOW_PREFIX: Final = "kt-connect-shadow-"
CONTAINER: Final = "standalone"

_SUFFIX_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_SUFFIX_LENGTH: Final = 5
#: Of a shadow pod's name before "-kt-": with its suffix and the Job's own it stays a label (63).
_STEM_LENGTH: Final = 50
#: RFC 1123 subdomain, as Kubernetes has it (Kubernetes doc, "Object Names and IDs").
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
MAX_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def preview_prefix(service: str) -> str:
    """What the names of a preview's shadow pods begin with: `SERVICE-kt-`."""
    return service[:_STEM_LENGTH].rstrip("-") + "-kt-"


def exchange_prefix(name: str) -> str:
    """What the names of an exchange's shadow pods begin with: `SERVICE-kt-exchange-`."""
    return name[: _STEM_LENGTH - len("exchange-")].rstrip("-.") + "-kt-exchange-"


def shadow_name(entropy: bytes, prefix: str = SHADOW_PREFIX) -> str:
    """`kt-connect-shadow-xxxxx`, its letters from `entropy` (5 octets or more)."""
    return prefix + "".join(_SUFFIX_LETTERS[octet % 26] for octet in entropy[:_SUFFIX_LENGTH])


def check_namespace(name: str) -> str:
    """`name` when it can be a namespace (RFC 1123 label).

    Raises:
        UsageFault: it cannot.
    """
    if not _LABEL.match(name):
        raise UsageFault(f"{name!r} is no name of a namespace", why="lower-case letters, digits and -, at most 63")
    return name


def is_name(text: str) -> bool:
    """Whether an object can have it (RFC 1123 subdomain)."""
    return len(text) <= MAX_NAME and _SUBDOMAIN.match(text) is not None


def annotation_safe(text: str, most: int = 128) -> str:
    """`text` as an annotation's value: printable and bounded."""
    return "".join(letter for letter in text if letter.isprintable())[:most]
