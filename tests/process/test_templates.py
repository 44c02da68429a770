"""The start does not wait for a library of templates, and who makes one has the whole library."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
import proxy.bootstrap.gateway
assert "semantic_kernel" in sys.modules
assert not {"pymeta", "pybars._compiler"} & sys.modules.keys()
"""
TEMPLATE = """
import asyncio
from semantic_kernel import Kernel
from semantic_kernel.exceptions import HandlebarsTemplateSyntaxError
from semantic_kernel.functions import KernelArguments
from semantic_kernel.prompt_template import HandlebarsPromptTemplate, PromptTemplateConfig

def template(text):
    config = PromptTemplateConfig(template=text, template_format="handlebars")
    return HandlebarsPromptTemplate(prompt_template_config=config)

"""
RENDERS = """
print(asyncio.run(template("Hello, {{name}}!").render(Kernel(), KernelArguments(name="Ada"))))
"""
REFUSES = """
try:
    template("{{#if}")
except HandlebarsTemplateSyntaxError as error:
    print(type(error.__cause__).__module__)
"""
IS_WHOLE = """
import pybars
print(pybars.strlist.__module__)
import pybars
print(pybars.Compiler.__module__)
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (RENDERS, ["Hello,", "Ada!"]),
        (REFUSES, ["pybars._compiler"]),
        (RENDERS + REFUSES, ["Hello,", "Ada!", "pybars._compiler"]),
    ],
    ids=["a template", "a wrong template", "one after the other"],
)
def test_templates_are_as_ever(what: str, said: list[str]) -> None:
    assert output_of(START + TEMPLATE + what).split() == said


def test_whoever_imports_the_library_has_it() -> None:
    assert output_of(START + IS_WHOLE).split() == ["pybars._compiler", "pybars._compiler"]


def test_a_library_that_is_there_already_stays() -> None:
    assert output_of("import pybars; import proxy.bootstrap; print(pybars.Compiler.__module__)").split() == [
        "pybars._compiler"
    ]


def output_of(program: str) -> str:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
