"""Conversion of LiteLLM's proxy configuration. Whatever has no counterpart here is told, with its line and the reason.

source.py     LiteLLM's file as sections that know what has been taken from them
dialects.py   LiteLLM's model prefixes: which kind of provider each is
providers.py  connections of deployments, gathered into providers
prices.py     prices and capabilities of models
models.py     model_list
instead.py    what to do about settings that have no counterpart
routing.py    router_settings, litellm_settings, general_settings
converting.py all of it; writing.py as text
"""
