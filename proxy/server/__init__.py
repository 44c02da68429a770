"""Listening, and stopping without losing anything."""
