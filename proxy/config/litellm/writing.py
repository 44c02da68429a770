"""A configuration as YAML, with what was lost in comments."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import yaml

from proxy.config.document import PLAIN_WORDS
from proxy.domain.exact_prices import exact_text

_WIDTH = 120
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML takes for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's hook; anchors are for people to set
        return True


for _tag, _pattern, _first in PLAIN_WORDS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def _represented(dumper: yaml.SafeDumper, value: Decimal) -> yaml.ScalarNode:
    text = exact_text(value)
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


_Dumper.add_representer(Decimal, _represented)


def written(config: dict[str, Any], comments: list[str]) -> str:
    """The text of a file that begins with those comments."""
    head = "".join(f"# {_NOT_PRINTABLE.sub(' ', line)}\n" for line in comments)
    body = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return f"{head}\n{body}"
