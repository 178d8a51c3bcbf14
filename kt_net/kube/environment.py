"""The environment of a container, as the kubelet makes it of the pod's spec. Pure.

Source: Kubernetes doc, "Define Environment Variables for a Container", and the API reference of EnvVar and EnvFromSource. What the image
says itself (PATH, HOME) is not in it, and is not missed: a program of this machine has its own.

Not here: reading ConfigMaps and Secrets, running anything.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, TypeAlias

from kt_net.kube.quantities import parse_quantity

Object: TypeAlias = Mapping[str, Any]
#: Of a ConfigMap or a Secret, by kind and name: its values. A text instead says why they cannot be read; None: there is no such object.
Read: TypeAlias = Callable[[str, str], "Mapping[str, str] | str | None"]

#: What env(1) and shells can do with; the kubelet passes over others.
_NAME: Final = re.compile(r"[-._A-Za-z][-._A-Za-z0-9]*\Z")
#: $(NAME), and $$ which stands for a dollar sign (Kubernetes doc, EnvVar).
_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^()]*)\))")
_KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]\Z")


@dataclass(slots=True)
class Environment:
    """What was found.

    Attributes:
        values: by name.
        missing: what could not be found, by name and why.
    """

    values: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def container_of(pod: Object, *, name: str = "", port: int | str = 0) -> Object | None:
    """The container that is meant: by its name; else the one that has the port, else the first one.

    Args:
        port: a target port: a number or a name.
    """
    containers = (pod.get("spec") or {}).get("containers") or ()
    if name:
        return next((one for one in containers if one.get("name") == name), None)
    for one in containers:
        if any(port in (offered.get("containerPort"), offered.get("name")) for offered in one.get("ports") or ()):
            found: Object = one
            return found
    return next(iter(containers), None)


def environment_of(pod: Object, container: Object, read: Read) -> Environment:
    """Of one container; ConfigMaps and Secrets first, then what is said one by one, in order."""
    result = Environment()
    for source in container.get("envFrom") or ():
        _take_all(source, read, result)
    for one in container.get("env") or ():
        name = str(one.get("name") or "")
        if not _NAME.match(name):
            continue
        if "valueFrom" in one:
            value = _value_from(name, one["valueFrom"] or {}, pod, container, read, result)
            if value is not None:
                result.values[name] = value
        else:
            result.values[name] = expanded(str(one.get("value") or ""), result.values)
    return result


def expanded(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) by its value, if there is one; $$(NAME) is $(NAME) as it stands."""

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def _take_all(source: Object, read: Read, result: Environment) -> None:
    for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        reference = source.get(key)
        if not reference:
            continue
        found = read(kind, str(reference.get("name") or ""))
        if isinstance(found, Mapping):
            for name, value in found.items():
                whole = f"{source.get('prefix') or ''}{name}"
                if _NAME.match(whole):
                    result.values[whole] = value
        elif found is not None or not reference.get("optional"):
            result.missing.append(f"all of {kind} {reference.get('name')}: {found or 'there is none'}")


def _value_from(
    name: str, source: Object, pod: Object, container: Object, read: Read, result: Environment
) -> str | None:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        reference = source.get(key)
        if reference:
            found = read(kind, str(reference.get("name") or ""))
            wanted = str(reference.get("key") or "")
            if isinstance(found, Mapping) and wanted in found:
                return found[wanted]
            if isinstance(found, str) or not reference.get("optional"):
                why = found if isinstance(found, str) else "there is none"
                result.missing.append(f"{name} ({kind} {reference.get('name')}, {wanted}: {why})")
            return None
    value = None
    if source.get("fieldRef"):
        value = _field(str(source["fieldRef"].get("fieldPath") or ""), pod)
    elif source.get("resourceFieldRef"):
        value = _resource(source["resourceFieldRef"], container)
    if value is None:
        result.missing.append(f"{name} ({', '.join(source)} is not known here)")
    return value


def _field(path: str, pod: Object) -> str | None:
    """Downward API (Kubernetes doc, "Available fields")."""
    metadata, spec, status = (pod.get(part) or {} for part in ("metadata", "spec", "status"))
    keyed = _KEYED.match(path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    found: dict[str, Any] = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": status.get("hostIP"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": ",".join(one.get("ip", "") for one in status.get("podIPs") or ()),
        "status.hostIPs": ",".join(one.get("ip", "") for one in status.get("hostIPs") or ()),
    }
    value = found.get(path)
    return None if value is None else str(value)


def _resource(reference: Object, container: Object) -> str | None:
    """limits.cpu and the like, in units of the divisor, rounded up; without a limit nobody here knows the node's."""
    section, _, resource = str(reference.get("resource") or "").partition(".")
    text = ((container.get("resources") or {}).get(section) or {}).get(resource)
    divisor = str(reference.get("divisor") or "1")
    quantity, unit = parse_quantity(str(text or "")), parse_quantity("1" if divisor == "0" else divisor)
    if quantity is None or not unit:
        return None
    return str(ceil(quantity / unit))


def values_of(kind: str, found: Object) -> dict[str, str]:
    """Of a ConfigMap or a Secret; what is no base64 is passed over."""
    data = found.get("data") or {}
    if kind == "ConfigMap":
        return {str(key): str(value) for key, value in data.items()}
    values = {}
    for key, value in data.items():
        try:
            values[str(key)] = base64.b64decode(str(value), validate=True).decode("utf-8", "surrogateescape")
        except (binascii.Error, ValueError):
            continue
    return values


def env_file(values: Mapping[str, str]) -> tuple[str, list[str]]:
    """As `docker run --env-file` reads it, NAME=VALUE a line without quoting; and the names whose values have more lines than one."""
    several = [name for name, value in values.items() if "\n" in value or "\r" in value]
    lines = [f"{name}={value}\n" for name, value in sorted(values.items()) if name not in several]
    return "".join(lines), several
