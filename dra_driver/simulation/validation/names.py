"""Names as the API server knows them: DNS labels and subdomains, C identifiers, qualified names, label keys and values.

Each check takes the field path and the value and returns causes, none when the value is well-formed. The rules are
those of apimachinery (pkg/util/validation) and, for attribute names, of pkg/apis/resource/validation.
"""

from __future__ import annotations

import re

from dra_driver.simulation.validation import limits
from dra_driver.simulation.validation.cause import Cause, invalid, required, too_long

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

_LABEL_TEXT = "must be lower case letters, digits or '-', starting and ending with a letter or digit (RFC 1123 label)"
_SUBDOMAIN_TEXT = (
    "must be lower case letters, digits, '-' or '.', starting and ending with a letter or digit (RFC 1123 subdomain)"
)


def dns_label(path: str, value: str) -> list[Cause]:
    causes = [invalid(path, value, "must be no more than 63 bytes")] if len(value) > 63 else []
    if not _LABEL.fullmatch(value):
        causes.append(invalid(path, value, _LABEL_TEXT))
    return causes


def dns_subdomain(path: str, value: str) -> list[Cause]:
    causes = [invalid(path, value, "must be no more than 253 bytes")] if len(value) > 253 else []
    if not _SUBDOMAIN.fullmatch(value):
        causes.append(invalid(path, value, _SUBDOMAIN_TEXT))
    return causes


def object_name(path: str, metadata_name: str, generate_name: str) -> list[Cause]:
    """Name of an object; a generateName is judged as if its random end were there."""
    if metadata_name:
        return dns_subdomain(path + ".name", metadata_name)
    if generate_name:
        return dns_subdomain(path + ".generateName", generate_name + "x")
    return [required(path + ".name", "name or generateName is required")]


def driver_name(path: str, value: str) -> list[Cause]:
    """The rule of CSI driver names; upper case passes (ValidateCSIDriverName lowers it first)."""
    if not value:
        return [required(path)]
    causes = [too_long(path, limits.DRIVER_NAME_BYTES)] if len(value) > limits.DRIVER_NAME_BYTES else []
    return causes + [invalid(path, value, _SUBDOMAIN_TEXT) for _ in dns_subdomain(path, value.lower())[:1]]


def pool_name(path: str, value: str) -> list[Cause]:
    if not value:
        return [required(path)]
    causes = [too_long(path, limits.POOL_NAME_BYTES)] if len(value) > limits.POOL_NAME_BYTES else []
    for part in value.split("/"):
        causes += dns_subdomain(path, part)
    return causes


def qualified_name(path: str, value: str) -> list[Cause]:
    """An attribute or capacity name: ``identifier`` or ``domain/identifier``."""
    parts = value.split("/")
    if len(parts) > 2:
        return [invalid(path, value, "must not contain more than one slash")]
    causes: list[Cause] = []
    if len(parts) == 2:
        causes += driver_name(path, parts[0]) if parts[0] else [invalid(path, "", "the domain must not be empty")]
        if not parts[1]:
            return [*causes, invalid(path, "", "the name must not be empty")]
    return causes + _c_identifier(path, parts[-1])


def fully_qualified_name(path: str, value: str) -> list[Cause]:
    causes = qualified_name(path, value)
    if "/" not in value:
        causes.append(invalid(path, value, "a fully qualified name must be a domain and a name separated by a slash"))
    return causes


def _c_identifier(path: str, value: str) -> list[Cause]:
    causes = [too_long(path, limits.IDENTIFIER_BYTES)] if len(value) > limits.IDENTIFIER_BYTES else []
    if not _C_IDENTIFIER.fullmatch(value):
        causes.append(invalid(path, value, "must be letters, digits or '_', not starting with a digit (C identifier)"))
    return causes


def label_key(path: str, value: str) -> list[Cause]:
    """Key of a label, annotation, taint or condition: ``name`` or ``prefix/name``."""
    prefix, slash, name = value.rpartition("/")
    causes: list[Cause] = []
    if slash:
        causes += dns_subdomain(path, prefix) if prefix else [invalid(path, value, "prefix part must be non-empty")]
    if not name:
        return [*causes, invalid(path, value, "name part must be non-empty")]
    if len(name) > 63:
        causes.append(invalid(path, value, "name part must be no more than 63 bytes"))
    if not _QUALIFIED.fullmatch(name):
        causes.append(
            invalid(
                path, value, "name part must be letters, digits, '-', '_' or '.', with a letter or digit at its ends"
            )
        )
    return causes


def label_value(path: str, value: str) -> list[Cause]:
    if not value:
        return []
    causes = [invalid(path, value, "must be no more than 63 bytes")] if len(value) > 63 else []
    if not _QUALIFIED.fullmatch(value):
        causes.append(
            invalid(
                path, value, "must be empty, or letters, digits, '-', '_' or '.', with a letter or digit at its ends"
            )
        )
    return causes


def share_id(path: str, value: str) -> list[Cause]:
    if _UUID.fullmatch(value):
        return []
    return [invalid(path, value, "must be a UUID of lower case hexadecimal digits in its 36-character form")]
