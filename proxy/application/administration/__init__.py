"""Handing the gateway to others: organisations, teams, keys, budgets and limits, and who changed them."""
