"""The configuration file: which providers there are, which models they serve, and how requests are shared out.

document.py    YAML to plain values, each with its line
environment.py a variable's value, or that of the file that stands for it; references.py  ${NAME} in the document
fields.py      the kinds of values; schema.py what is made of them
filling.py     what is not written: inherited values, the environment's settings
checks.py      what holds between values: names that lead somewhere, cycles, duplicates
problems.py    what is wrong, and where; messages.py in words
loading.py     all of this in order
showing.py     what is in force, and where it comes from
editors.py     the JSON Schema
litellm/       conversion from LiteLLM's file
"""
