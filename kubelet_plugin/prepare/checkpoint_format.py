"""The bytes of the checkpoint: JSON that can still be read where it is whole when some of it is not. Pure.

::

    {"version":1,"checksum":"<header>","bootID":"<boot of the last writer>","claims":{
    "<uid>":{"checksum":"<claim>","claim":{...}},
    "<uid>":{"checksum":"<claim>","claim":{...}}
    }}

Every claim has a checksum of its own and is found by its opening words, so damage anywhere costs the claims it touches
and no other. The header's checksum covers version, boot and all claims' checksums: a missing claim is noticed.
A later version that gives ``claim`` another meaning has to give it another name; then this one leaves it alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelet_plugin.claims.entry import ClaimEntry, entry_from_json, entry_to_json

VERSION = 1

_CLAIM_OPENING = re.compile(r'"([A-Za-z0-9.-]+)":\{"checksum":"([0-9a-f]{16})","claim":(?=\{)')


@dataclass(frozen=True, slots=True)
class EncodedClaim:
    """One claim's line and its checksum, kept so that writing the file again costs only its size."""

    checksum: str
    line: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read. ``problems`` is empty exactly when the file is whole; ``newer`` names a later version."""

    entries: Mapping[str, ClaimEntry]
    problems: tuple[str, ...] = ()
    newer: int | None = None


def encode_claim(entry: ClaimEntry) -> EncodedClaim:
    claim = _compact(entry_to_json(entry))
    checksum = _checksum(claim)
    return EncodedClaim(checksum, f'{_compact(entry.ref.uid)}:{{"checksum":"{checksum}","claim":{claim}}}')


def encode_file(boot_id: str, claims: Mapping[str, EncodedClaim]) -> bytes:
    """The whole file; ``claims`` by UID."""
    header = _header_checksum(VERSION, boot_id, {uid: claim.checksum for uid, claim in claims.items()})
    lines = ",\n".join(claims[uid].line for uid in sorted(claims))
    start = f'{{"version":{VERSION},"checksum":"{header}","bootID":{_compact(boot_id)},"claims":{{\n'
    return f"{start}{lines}\n}}}}\n".encode()


def decode_file(data: bytes) -> Reading:
    """Everything in ``data`` that verifies. Never raises, whatever ``data`` is."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return _salvage(data, f"not JSON: {error}")
    if not isinstance(document, dict):
        return _salvage(data, "not a JSON object")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        reading = _salvage(data, f"version {version}, but this driver knows versions up to {VERSION}")
        return Reading(reading.entries, reading.problems, newer=version)
    if version != VERSION:
        return _salvage(data, f"version {version!r} is not {VERSION}")
    return _verified(document) or _salvage(data, "checksums do not match")


def _verified(document: dict[str, Any]) -> Reading | None:
    """The entries of a file in which everything verifies, else None."""
    entries: dict[str, ClaimEntry] = {}
    try:
        checksums = {uid: record["checksum"] for uid, record in document["claims"].items()}
        if document["checksum"] != _header_checksum(VERSION, document["bootID"], checksums):
            return None
        for uid, record in document["claims"].items():
            entry = _verified_claim(uid, record["checksum"], record["claim"])
            if entry is None:
                return None
            entries[uid] = entry
    except (KeyError, TypeError, AttributeError):
        return None
    return Reading(entries)


def _salvage(data: bytes, problem: str) -> Reading:
    """Every claim that verifies by itself, found by its opening words."""
    text = data.decode(errors="replace")
    decoder = json.JSONDecoder()
    entries: dict[str, ClaimEntry] = {}
    problems = [problem]
    for opening in _CLAIM_OPENING.finditer(text):
        uid, checksum = opening.groups()
        try:
            claim, _end = decoder.raw_decode(text, opening.end())
        except (ValueError, RecursionError):
            entry = None
        else:
            entry = _verified_claim(uid, checksum, claim)
        if entry is None:
            problems.append(f"claim {uid} does not verify")
        else:
            entries[uid] = entry
    problems.append(f"{len(entries)} claims verify and are kept")
    return Reading(entries, tuple(problems))


def _verified_claim(uid: str, checksum: object, claim: object) -> ClaimEntry | None:
    if not isinstance(claim, dict) or _checksum(_compact(claim)) != checksum:
        return None
    try:
        entry = entry_from_json(claim)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return entry if entry.ref.uid == uid else None


def _header_checksum(version: int, boot_id: str, checksums: Mapping[str, str]) -> str:
    return _checksum(_compact([version, boot_id, [[uid, checksums[uid]] for uid in sorted(checksums)]]))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
