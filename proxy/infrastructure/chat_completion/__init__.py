"""Semantic Kernel chat completion services over providers' own wire formats."""
