"""What can be raised when a database is not there, or not willing."""

import asyncio
import sqlite3
import ssl

import asyncpg

from proxy.domain.errors import NotServing

# InterfaceError is raised for pools and connections that are closed; OSError and TimeoutError while connecting;
# InternalClientError on a connection of which the server has said that it ends, until it has ended.
DATABASE_ERRORS = (
    sqlite3.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)
_AWAY_ERRORS = (
    asyncpg.CannotConnectNowError,  # starting up, shutting down, recovering
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ConnectionDoesNotExistError,  # it hung up
    asyncpg.ConnectionFailureError,
    asyncpg.TooManyConnectionsError,
)
_ENDING_ERRORS = (asyncpg.PostgresError, asyncpg.InternalClientError, TimeoutError, asyncio.CancelledError)
_RETRY_AFTER_SECONDS = 5.0


def not_serving(problem: BaseException) -> NotServing:
    """What clients are told of one of DATABASE_ERRORS: 503, and its kind."""
    return NotServing(f"The database does not answer ({type(problem).__name__}).", _RETRY_AFTER_SECONDS)


def advice_on(problem: BaseException) -> str:
    """What to do about one of DATABASE_ERRORS, to be put behind its message; nothing where that says it."""
    if isinstance(problem, asyncpg.UndefinedObjectError):  # while connecting
        return (
            ". What follows the ? of DATABASE_URL is set for the session, but for what the driver knows; leave it out"
        )
    if isinstance(problem, asyncpg.ReadOnlySQLTransactionError):
        return ". Of several hosts DATABASE_URL finds the primary with ?target_session_attrs=primary"
    if isinstance(problem, asyncpg.InsufficientPrivilegeError):
        return ". The role must own the tables, and may create in its schema: docs/operations.md, PostgreSQL"
    return ""


def kind_of(problem: BaseException) -> str:
    """Its class; of SQLite, where one class is for full, locked and read-only files, also the error's own name."""
    name = getattr(problem, "sqlite_errorname", None)
    return f"{type(problem).__name__} ({name})" if name else type(problem).__name__


def is_about_reaching(problem: BaseException) -> bool:
    """Whether a PostgreSQL server cannot be reached now: refused, timed out, no such name, starting up, hung up.

    Not so when it is there and will not have us: a wrong password, a missing database, TLS that does not match.
    """
    if isinstance(problem, ssl.SSLError | PermissionError):
        return False
    if type(problem) is ConnectionError:  # asyncpg's own: TLS is refused, or the connection was lost
        return "SSL" not in str(problem)
    return isinstance(problem, (OSError, *_AWAY_ERRORS))  # TimeoutError and socket.gaierror are OSErrors


def column_taken(problem: BaseException) -> str | None:
    """The column, or the first of the columns, whose value another row has; None if the trouble is another one."""
    if isinstance(problem, asyncpg.UniqueViolationError):
        constraint, table = problem.constraint_name or "", problem.table_name or ""
        return constraint.removeprefix(f"{table}_").removesuffix("_key")
    if isinstance(problem, sqlite3.IntegrityError) and problem.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE":
        return str(problem).partition(": ")[2].partition(",")[0].rpartition(".")[2]
    return None


def ends_its_connection(problem: BaseException) -> bool:
    """Whether PostgreSQL may do better on a new connection, and this one must not be used again.

    It may lead to a server that is no primary any more, or have settings that the database or the role had when it
    began, and has no more. A connection that is always in use would stay for ever. Who is cancelled, or has no more
    time, would have to ask the server to give up what it is doing, and to wait: it may be frozen.
    """
    return isinstance(problem, _ENDING_ERRORS) and not is_about_the_row(problem)


def is_about_the_row(problem: BaseException) -> bool:
    """Whether the database refused the data itself, so that the same row will be refused again."""
    return isinstance(problem, _ROW_ERRORS)
