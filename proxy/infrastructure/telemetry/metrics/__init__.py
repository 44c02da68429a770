"""Prometheus's metrics."""
