"""Counters of the text format in which Prometheus reads them, and the difference of two readings. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Counts:
    """``values``: by the sample's name and labels."""

    values: Mapping[tuple[str, _Labels], float]

    @classmethod
    def parse(cls, text: str) -> Counts:
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    @classmethod
    def sum(cls, several: Iterable[Counts]) -> Counts:
        """Of several runs together."""
        values: Counter[tuple[str, _Labels]] = Counter()
        for each in several:
            values.update(each.values)
        return cls(values)

    def since(self, before: Counts) -> Counts:
        return Counts({key: value - before.values.get(key, 0.0) for key, value in self.values.items()})

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of that name that have these labels."""
        return sum(value for _, value in self._series(name, labels))

    def quantile(self, name: str, share: float, **labels: str) -> float:
        """Of a histogram, as PromQL's histogram_quantile has it: even within a bucket. NaN for nothing."""
        below: dict[float, float] = {}
        for series, value in self._series(f"{name}_bucket", labels):
            bound = float(dict(series)["le"])
            below[bound] = below.get(bound, 0.0) + value
        wanted = share * below.get(math.inf, 0.0)
        lower = before = 0.0
        for bound, count in sorted(below.items()):
            if count >= wanted > 0:
                within = (wanted - before) / (count - before) if count > before else 1.0
                return lower if bound == math.inf else lower + (bound - lower) * within
            lower, before = bound, count
        return math.nan

    def _series(self, name: str, labels: Mapping[str, str]) -> list[tuple[_Labels, float]]:
        wanted = frozenset(labels.items())
        return [(series, value) for (each, series), value in self.values.items() if each == name and wanted <= series]
