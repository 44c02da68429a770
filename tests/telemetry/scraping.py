"""Reading /metrics as Prometheus does."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.harness import AS_ADMIN, TestGateway


class Scrape:
    """The samples of one page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def of(self, name: str, **labels: str) -> list[Sample]:
        """The samples of that name which have these labels, and maybe others."""
        return [each for each in self.samples if each.name == name and labels.items() <= each.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(sample.value for sample in self.of(name, **labels))

    def only(self, name: str) -> tuple[dict[str, str], float]:
        """The labels and the value of the one sample of that name."""
        (sample,) = self.of(name)
        return sample.labels, sample.value

    def label_values(self, *names: str) -> set[str]:
        return {sample.labels[name] for sample in self.samples for name in names if name in sample.labels}


async def scrape(gateway: TestGateway) -> Scrape:
    """Of a gateway with an administrator's key, or without any keys."""
    async with gateway.http.get(gateway.url / "metrics", headers=AS_ADMIN) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return Scrape(await response.text())


def names(samples: Iterable[Sample]) -> set[str]:
    return {sample.name for sample in samples}
