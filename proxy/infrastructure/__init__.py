"""Adapters: the only home of third-party clients. Each implements a port of `proxy/application`."""
