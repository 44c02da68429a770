"""The database: Piccolo tables on SQLite or PostgreSQL."""
