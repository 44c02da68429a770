"""What can be raised when a database is not there, or not willing."""

import sqlite3

import asyncpg

# InterfaceError is raised for pools and connections that are closed; OSError and TimeoutError while connecting.
DATABASE_ERRORS = (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)


def is_about_the_row(problem: BaseException) -> bool:
    """Whether the database refused the data itself, so that the same row will be refused again."""
    return isinstance(problem, _ROW_ERRORS)
