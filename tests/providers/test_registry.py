"""Kinds by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.domain.errors import InvalidValue
from proxy.infrastructure.chat_completion.registry import KINDS, service_factory


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_factory(kind: str) -> None:
    assert callable(service_factory(kind))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidValue, match=r"Unknown provider kind 'opnai'; known are .*openai"):
        service_factory("opnai")


def test_a_kind_whose_library_is_missing_says_what_to_install() -> None:
    with pytest.raises(InvalidValue, match=r"Provider kind 'far' needs .*: pip install 'llmgateway\[faraway\]'"):
        service_factory("far", {"far": "not_there:FarChatCompletion [faraway]"})


def test_a_missing_module_of_a_kind_without_extra_is_our_own_mistake() -> None:
    with pytest.raises(ModuleNotFoundError):
        service_factory("far", {"far": "not_there:FarChatCompletion"})


def test_knowing_the_kinds_loads_none_of_them() -> None:
    """Checking a configuration must not take the seconds that Semantic Kernel takes."""
    code = """
import sys
from proxy.infrastructure.chat_completion.registry import KINDS
assert KINDS
sys.exit(bool({"semantic_kernel", "aiohttp"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
