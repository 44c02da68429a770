"""The start does not run OpenAI's SDK, and whoever imports it has all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
import proxy.bootstrap.gateway
assert "semantic_kernel" in sys.modules
assert not {"openai._client", "openai.types.chat"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("import openai; print(openai.AsyncOpenAI.__name__)", "AsyncOpenAI"),
        ("import openai; print(bool(openai.__version__), openai.__title__)", "True openai"),
        ("from openai import *; print(OpenAI.__name__)", "OpenAI"),
        ("from openai import OpenAI; print(type(OpenAI(api_key='none').chat.completions).__name__)", "Completions"),
        ("import openai.types.chat; print(openai.types.chat.ChatCompletion.__name__)", "ChatCompletion"),
        ("from openai.types import Completion; print(Completion.__name__)", "Completion"),
        ("import openai; print(openai.types.Completion.__name__, openai.NoSuchName)", "AttributeError"),
    ],
)
def test_the_package_is_whole(what: str, said: str) -> None:
    assert said in output_of(START + what)


def test_usage_is_made_of_the_packages_own() -> None:
    """Both ways to the class lead to one, also when the package has run since."""
    program = """
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
import openai
from openai.types.completion_usage import CompletionUsage as ByModule
openai.OpenAI
from openai.types import CompletionUsage as ByPackage
assert ByModule is ByPackage
print(CompletionUsage.from_openai(ByPackage(prompt_tokens=3, completion_tokens=4, total_tokens=7)).prompt_tokens)
"""
    assert output_of(START + program) == "3\n"


def test_the_kernels_own_connector_works() -> None:
    program = """
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
print(type(OpenAIChatCompletion("any", api_key="none").client).__name__)
"""
    assert output_of(START + program) == "AsyncOpenAI\n"


def test_looking_through_all_modules_runs_nothing() -> None:
    program = """
import inspect
for module in list(sys.modules.values()):
    inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    getattr(module, "__warningregistry__", None)
assert "openai._client" not in sys.modules
"""
    output_of(START + program)


def test_a_package_that_is_there_already_stays() -> None:
    assert output_of("import openai; import proxy.bootstrap; print(type(openai).__name__)") == "module\n"


def output_of(program: str) -> str:
    """What it prints; a program that fails says why."""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    return ended.stdout if ended.returncode == 0 else ended.stderr
