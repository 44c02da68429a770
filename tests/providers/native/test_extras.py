"""Kinds whose SDK is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("kind", "package"), [("anthropic", "anthropic"), ("google", "google.genai")])
def test_a_missing_sdk_is_told_with_the_cure(kind: str, package: str) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.chat_completion.registry import service_factory
try:
    service_factory("{kind}")
except InvalidValue as problem:
    print(problem)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'llmgateway[" + kind + "]'" in ran.stdout, ran.stderr
    assert f"Provider kind '{kind}' needs the package {package}" in ran.stdout


def test_neither_sdk_is_loaded_for_other_kinds() -> None:
    code = """
import sys
from proxy.infrastructure.chat_completion.registry import service_factory
service_factory("openai")
sys.exit(bool({"anthropic", "google.genai"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
