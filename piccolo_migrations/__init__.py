"""The history of the database schema; run by `llmgateway migrate` and by `piccolo migrations forwards proxy`."""
