"""Reads another role's ``/metrics`` back: the sum of the series that match, and quantiles of histograms."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


class Scrape:
    """The samples of one answer of ``/metrics``, by name."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def sum(self, name: str, **labels: str) -> float:
        """All series of that name with these label values, added up; 0 where there is none."""
        return sum(value for have, value in self._samples.get(name, ()) if labels.items() <= have.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """The same for each value of one label."""
        found: dict[str, float] = {}
        for have, value in self._samples.get(name, ()):
            found[have.get(label, "")] = found.get(have.get(label, ""), 0.0) + value
        return found

    def buckets(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """(upper edge, observations up to it) of a histogram, edges ascending, series with these labels added up."""
        found: dict[float, float] = {}
        for have, value in self._samples.get(f"{name}_bucket", ()):
            if labels.items() <= have.items():
                edge = float(have["le"])
                found[edge] = found.get(edge, 0.0) + value
        return sorted(found.items())


def quantile(now: Iterable[tuple[float, float]], before: Iterable[tuple[float, float]], q: float) -> float | None:
    """The edge below which a share ``q`` of what was observed between two scrapes lies; None of nothing."""
    earlier = dict(before)
    counts = [(edge, count - earlier.get(edge, 0.0)) for edge, count in now]
    if not counts or counts[-1][1] <= 0:
        return None
    return next(edge for edge, count in counts if count >= q * counts[-1][1])


def fetch(host: str, port: int, path: str = "/metrics", timeout_s: float = 2.0) -> str:
    """The text at that address. Raises OSError where nobody answers, or not with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"{host}:{port}{path}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{host}:{port}{path} answers {answer.status}")
    return text
