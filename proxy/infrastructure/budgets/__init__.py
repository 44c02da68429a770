"""Budgets that hold over all processes: money is leased from the database in slices, and set aside in memory."""
