"""Booking requests without making them wait for a database."""
