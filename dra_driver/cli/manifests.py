"""Manifests for the demo: reads YAML, turns Deployments and Jobs into pods, puts objects in the order of applying.

A DriverConfiguration among them is no object of the cluster: the demo's programs start with it. Only what the embedded
cluster can run is accepted. Errors name file, document and remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api.driver_config import KIND as CONFIGURATION
from api.driver_config import decode
from api.strict import DecodeError
from dra_driver.kube import interface as kube
from dra_driver.kube.interface import Obj, Resource
from dra_driver.simulation.validation import unknown_fields

_APPLIED = (
    kube.NAMESPACES,
    kube.CONFIG_MAPS,
    kube.DEVICE_CLASSES,
    kube.RESOURCE_CLAIM_TEMPLATES,
    kube.RESOURCE_CLAIMS,
    kube.PODS,
)
_EXPANDED = ("Deployment", "Job")
_SUFFIXES = (".json", ".yaml", ".yml")  # those that kubectl takes from a folder
_ENDINGS = ", ".join(_SUFFIXES)
_KINDS = ", ".join([*(f"{resource.api_version} {resource.kind}" for resource in _APPLIED), *_EXPANDED])
_TYPES = {(resource.api_version, resource.kind): resource for resource in _APPLIED}


class ManifestError(Exception):
    """A manifest cannot be used here."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A document that has a kind, and where it stands."""

    object: Obj
    source: str
    where: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object to apply, and the file it came from."""

    resource: Resource
    object: Obj
    source: str
    where: str  # the file as it was given, and which document in it

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        namespace: str | None = self.object["metadata"].get("namespace")
        return namespace

    def __str__(self) -> str:
        return (
            f"{self.resource.kind} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.resource.kind} {self.name}"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """``configuration``: the DriverConfiguration, where there is one."""

    manifests: tuple[Manifest, ...]
    configuration: Obj | None = None


def load(paths: Sequence[Path]) -> list[Manifest]:
    """The objects of files and folders, in file order, without a DriverConfiguration. Raises :class:`ManifestError`."""
    return list(load_all(paths).manifests)


def load_all(paths: Sequence[Path]) -> Loaded:
    """The objects of files and folders, in file order. Raises :class:`ManifestError`.

    Of a folder, as kubectl does: its files that end in ``.json``, ``.yaml`` or ``.yml``, and none of its folders.
    An object that is there again, word for word, is taken once.
    """
    entries = [entry for path in _files(paths) for entry in _read(path)]
    configurations = [entry for entry in entries if entry.object["kind"] == CONFIGURATION]
    others = (entry for entry in entries if entry.object["kind"] != CONFIGURATION)
    manifests = tuple(_distinct(manifest for entry in others for manifest in _manifests(entry)))
    if not manifests:
        raise ManifestError(
            f"no objects in {', '.join(map(str, paths)) or 'no files'}; give a file with Kubernetes objects, "
            f"or a folder with files that end in {_ENDINGS}"
        )
    return Loaded(manifests, _configuration(configurations))


def _configuration(found: Sequence[_Entry]) -> Obj | None:
    for entry in found:
        try:
            decode(entry.object)
        except DecodeError as error:
            raise ManifestError(f"{entry.where}: {CONFIGURATION}: {error}") from error
        if entry.object != found[0].object:
            raise ManifestError(
                f"{entry.where}: a second {CONFIGURATION}, the other one is in {found[0].where}; keep one of them"
            )
    return found[0].object if found else None


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """What others need first: namespaces, classes, templates, claims, then pods; else as they came."""
    return sorted(manifests, key=lambda manifest: _APPLIED.index(manifest.resource))


def _distinct(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    first: dict[tuple[Resource, str | None, str], Manifest] = {}
    for manifest in manifests:
        found = first.setdefault((manifest.resource, manifest.namespace, manifest.name), manifest)
        if found is not manifest and found.object == manifest.object:
            continue
        if found is not manifest and manifest.resource.namespaced:
            raise ManifestError(
                f"{manifest} is there twice with different content, in {found.where} and in {manifest.where}; remove "
                "or rename one"
            )
        # The last of several namespaces or classes of one name is taken, as apply does.
        yield manifest


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
        else:
            yield path


def _read(path: Path) -> Iterator[_Entry]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ManifestError(
            f"cannot read {path}: {error.strerror}; give -f a manifest file or a folder of them"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2026-13-01
        raise ManifestError(f"{path} is not YAML: {_yaml_problem(error)}; correct it there") from error
    for number, document in enumerate(documents, start=1):
        for entry in _flatten(document, f"{path}, document {number}"):
            yield _Entry(entry, path.name, f"{path}, document {number}")


def _yaml_problem(error: Exception) -> str:
    """The parser's complaint in one line, with line and column as editors count them."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _flatten(document: Any, where: str) -> Iterator[Obj]:
    if document is None:
        return
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise ManifestError(f"{where}: not a Kubernetes object (it has no kind); give it apiVersion and kind")
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flatten(item, where)
        return
    yield document


def _manifests(entry: _Entry) -> Iterator[Manifest]:
    obj, source, where = entry.object, entry.source, entry.where
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ManifestError(f"{where}: {obj['kind']} has no metadata.name, add it")
    api_version = obj.get("apiVersion")
    if not isinstance(api_version, str):
        raise ManifestError(f"{where}: {obj['kind']} {metadata['name']} has no apiVersion, add it")
    if obj["kind"] in _EXPANDED:
        for pod in _pods_of(obj, where):
            yield Manifest(kube.PODS, pod, source, where)
        return
    resource = _TYPES.get((api_version, obj["kind"]))
    if resource is None:
        raise ManifestError(f"{where}: {api_version} {obj['kind']} is not simulated, remove it; known are {_KINDS}")
    if resource.namespaced:
        obj = {**obj, "metadata": {"namespace": "default", **metadata}}
    if unknown := unknown_fields(resource, obj):
        # kubectl asks the server to be strict, and a size in a field of another name would be a whole GPU.
        raise ManifestError(
            f"{where}: {obj['kind']} {metadata['name']}: unknown {'fields' if len(unknown) > 1 else 'field'} "
            f"{', '.join(unknown)}; correct what is misspelt or remove it, since kubectl refuses that, too"
        )
    yield Manifest(resource, obj, source, where)


def _pods_of(workload: Obj, where: str) -> Iterator[Obj]:
    """The pods that the workload's controller would make, numbered: no such controller runs here."""
    spec = workload.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    template = spec.get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        raise ManifestError(f"{where}: {workload['kind']} has no spec.template.spec")
    count = (
        spec.get("replicas", 1)
        if workload["kind"] == "Deployment"
        else spec.get("completions", spec.get("parallelism", 1))
    )
    if not isinstance(count, int) or count < 0:
        raise ManifestError(f"{where}: {workload['kind']} wants {count!r} pods; give a whole number, 0 or more")
    given = template.get("metadata") or {}
    annotations = {**(workload["metadata"].get("annotations") or {}), **(given.get("annotations") or {})}
    for number in range(count):
        metadata = {
            **given,
            "name": f"{workload['metadata']['name']}-{number}",
            "namespace": workload["metadata"].get("namespace", "default"),
            "annotations": annotations,
        }
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
