"""LLM Gateway: an OpenAI-compatible reverse proxy that books every request exactly once."""

__version__ = "0.1.0"
