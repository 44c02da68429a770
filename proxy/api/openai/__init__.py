"""OpenAI's wire format: requests, errors, event streams, and its description for machines."""
