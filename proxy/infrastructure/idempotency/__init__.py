"""Answers of requests with an Idempotency-Key.

memory.py     the store of one process: answers as they come, and those that ended
shared.py     the store of one of several processes: its own memory, and a registry that they share
registry.py   what such a registry does: who has a key, and the answer that it got; records.py what it keeps
files.py      a registry for the workers of one machine; valkey.py for several gateways
"""
