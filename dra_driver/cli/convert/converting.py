"""The whole conversion: documents in, documents out, and what could not be converted. Pure.

A document in which nothing is to be converted is written as it was, so a second conversion changes nothing. A workload
of which a part cannot be converted stays whole as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from dra_driver.cli.convert import claims, device_plugin, documents, kai, plugin_config, quotas, vgpu, yaml_text
from dra_driver.cli.convert.documents import Document, Source
from dra_driver.cli.convert.model import Ask, CannotConvertError, Note, Path, Pod, Problem
from dra_driver.cli.convert.placement import Placement, read_placement
from dra_driver.cli.convert.placement import told as placement_told
from dra_driver.cli.convert.reading import HAMI_SCHEDULER, old_requests, read_pod
from dra_driver.cli.convert.rewriting import rewrite
from dra_driver.cli.convert.sizes import Size
from dra_driver.cli.convert.workloads import is_list, pod_path

_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Options:
    """``sizes``: what a percentage is of. ``keep_scheduler``: KAI and Volcano go on scheduling their pods."""

    sizes: tuple[Size, ...] = ()
    keep_scheduler: bool = False


@dataclass(frozen=True, slots=True)
class Converted:
    """``problems`` are sentences that name document, place and remedy."""

    text: str
    problems: tuple[str, ...]


def convert(sources: Iterable[Source], options: Options) -> Converted:
    found = [document for source in sources for document in documents.split(source)]
    converter = _Converter(options)
    parts = [converter.document(document) for document in found]
    return Converted(documents.join(parts), tuple(converter.problems))


@dataclass(frozen=True, slots=True)
class _Result:
    """What an object became: the templates that it needs, and itself, each with its comments."""

    objects: list[tuple[dict[str, Any], list[Note]]] = field(default_factory=list)


class _Converter:
    """``_owners``: which container a template's name was given to; other workloads get other names."""

    def __init__(self, options: Options) -> None:
        self.problems: list[str] = []
        self._options = options
        self._owners: dict[tuple[str, str], str] = {}

    def document(self, document: Document) -> str:
        if not document.has_content:
            return document.text
        try:
            data = yaml_text.load(document.text)
        except yaml.YAMLError as error:
            return self._not_yaml(document, _told(error, document.line))
        except (ValueError, RecursionError) as error:
            return self._not_yaml(document, "nested too deep" if isinstance(error, RecursionError) else str(error))
        except yaml_text.TooLargeError:
            return self._not_yaml(document, "too much, with its aliases written out, or nested too deep")
        try:
            return self._converted(document, data)
        except CannotConvertError as error:
            told = [f"{document.where}: {problem}" for problem in error.problems]
            self.problems += told
            return self._left(document, told)

    def _converted(self, document: Document, data: Any) -> str:
        if plugin_config.is_config(data):
            obj, notes = plugin_config.driver_configuration(document.text)
            return document.head + yaml_text.dump(obj, notes)
        if not isinstance(data, dict):
            return document.text
        configs = plugin_config.configs_in(data)
        if configs:
            return document.commented(plugin_config.comment_for(data, configs))
        about = quotas.comment_for(data)
        if about:
            return document.commented(about)
        if is_list(data):
            return self._list(document, data)
        result = self._object(data)
        if result is None:
            return document.text
        texts = [yaml_text.dump(obj, notes) for obj, notes in result.objects]
        return document.head + documents.join(texts)

    def _list(self, document: Document, data: dict[str, Any]) -> str:
        """Templates become items before those that need them."""
        items: list[Any] = []
        all_notes: list[Note] = []
        problems: list[Problem] = []
        changed = False
        for number, item in enumerate(data["items"]):
            try:
                result = self._object(item) if isinstance(item, dict) else None
            except CannotConvertError as error:
                problems += [
                    Problem(("items", number, *each.path), each.message, each.remedy) for each in error.problems
                ]
                result = None
            changed = changed or result is not None
            for obj, notes in result.objects if result else [(item, [])]:
                all_notes += [Note(("items", len(items), *note.path), note.text) for note in notes]
                items.append(obj)
        self.problems += [f"{document.where}: {problem}" for problem in problems]
        if not changed:
            return document.text
        data["items"] = items
        return document.head + yaml_text.dump(data, all_notes)

    def _object(self, obj: dict[str, Any]) -> _Result | None:
        """None where there is nothing to convert. Raises :class:`CannotConvertError`."""
        self._remember(obj)
        path = pod_path(obj)
        if path is None:
            self._refuse_unknown(obj)
            return None
        place = _inside(obj, path)
        if not any(True for _ in old_requests(place)):
            return None
        pod = read_pod(place, path)
        asks, told = self._asks(pod)
        amounts = any(container.amounts for container in pod.containers)
        if not isinstance(place.get("spec"), dict) or not (asks or told or amounts or pod.scheduler == HAMI_SCHEDULER):
            return None
        result = _Result()
        names = {}
        for container in pod.containers:
            if container.path in asks:
                namespace = _text(obj, "metadata", "namespace")
                name = self._template_name(obj, namespace or "", container.name)
                result.objects.append(claims.template(name, namespace, asks[container.path], self._options.sizes))
                names[container.path] = name
        notes = rewrite(obj, pod, names, told, keep_scheduler=self._options.keep_scheduler)
        result.objects.append((obj, notes))
        return result

    def _asks(self, pod: Pod) -> tuple[Mapping[Path, list[Ask]], list[str]]:
        """By container, in the order of resources; and what is to be said about the pod. Every problem at once."""
        problems: list[Problem] = []
        asks: dict[Path, list[Ask]] = {}
        placement, placed = Placement(), False
        told: list[str] = []
        try:
            placement = read_placement(pod)
        except CannotConvertError as error:
            problems += error.problems
        try:
            fractions = kai.read(pod)
            asks |= {path: list(found) for path, found in fractions.asks.items()}
            told += fractions.told
        except CannotConvertError as error:
            problems += error.problems
        for container in pod.containers:
            found: list[Ask] = []
            for read in (partial(vgpu.asks, mig=placement.mig), device_plugin.asks):
                try:
                    found += map(placement.applied, read(container))
                except CannotConvertError as error:
                    problems += error.problems
            if found:
                asks.setdefault(container.path, []).extend(found)
                placed = True
        if problems:
            raise CannotConvertError(problems)
        return asks, [*told, *placement_told(pod, applied=placed)]

    def _template_name(self, obj: Mapping[str, Any], namespace: str, container: str) -> str:
        workload = _text(obj, "metadata", "name") or (_text(obj, "metadata", "generateName") or "").rstrip("-")
        if not workload:
            raise CannotConvertError([Problem(("metadata",), "the workload has no name", "add metadata.name")])
        owner = f"{obj.get('kind')} {workload}, container {container}"
        name = claims.name_of(workload, container, "gpu")
        while self._owners.setdefault((namespace, name), owner) != owner:
            name = claims.name_of(str(obj.get("kind")).lower(), name)
        return name

    def _remember(self, obj: Mapping[str, Any]) -> None:
        if obj.get("kind") == claims.KIND:
            key = (_text(obj, "metadata", "namespace") or "", _text(obj, "metadata", "name") or "")
            self._owners[key] = "a template that was there"

    def _refuse_unknown(self, obj: Mapping[str, Any]) -> None:
        found = list(old_requests(obj))
        if found:
            kind = f"{obj.get('apiVersion')} {obj.get('kind')}"[:80]
            message = f"the pods of a {kind} are not known here, so this stays as it is"
            remedy = "convert its pod template as a PodTemplate, and copy it back"
            raise CannotConvertError([Problem(path, message, remedy) for path in found[:_MOST_NAMED]])

    def _not_yaml(self, document: Document, why: str) -> str:
        """What nobody can read is left out, so that the rest can be applied."""
        told = f"{document.where}: is not YAML that can be used: {why}; correct it"
        self.problems.append(told)
        return "".join(f"{line}\n" for line in yaml_text.comment(f"Left out: {told}"))

    def _left(self, document: Document, told: list[str]) -> str:
        lines = [line for each in told for line in yaml_text.comment(f"Not converted: {each.partition(': ')[2]}")]
        return document.commented("".join(f"{line}\n" for line in lines))


def _told(error: yaml.YAMLError, first: int) -> str:
    """The parser's complaint in one line, with the line in the file as editors count it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {first + mark.line}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _inside(obj: Any, path: Path) -> dict[str, Any]:
    """The pod of a workload; an empty one where there is nothing or something else."""
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj if isinstance(obj, dict) else {}


def _text(obj: Mapping[str, Any], *path: str) -> str | None:
    found = _inside(obj, path[:-1]).get(path[-1])
    return found if isinstance(found, str) and found else None
