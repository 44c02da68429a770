"""Makes room for years: request logs in partitions by time (PostgreSQL), and the rollups that reports are read from.

Piccolo has no words for partitions, triggers and these tables. Rows that are there stay, in a partition for each month.
Running it again, or on a database where a part of it is done, changes nothing.
"""

from datetime import UTC, datetime, timedelta

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Timestamptz
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-22T23:55:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "partitions by time and usage rollups"

DAYS_AHEAD = 3
MOST_MONTHS = 120


class RequestLogs(Table, tablename="request_logs"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)
    timestamp = Timestamptz()


ROLLUP_COLUMNS = """
    model {text} NOT NULL,
    provider {text} NOT NULL,
    status {text} NOT NULL,
    cost_source {text} NOT NULL,
    requests BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    unknown_costs BIGINT NOT NULL,
    microdollars BIGINT NOT NULL,
    picodollars BIGINT NOT NULL,
    response_times {array},
    first_byte_times {array}
"""
POSTGRES_TYPES = {"time": "TIMESTAMPTZ", "text": "VARCHAR(255)", "array": "BIGINT[]", "uuid": "UUID"}
SQLITE_TYPES = {"time": "TEXT", "text": "TEXT", "array": "TEXT", "uuid": "UUID"}
TABLES = (
    f"CREATE TABLE IF NOT EXISTS usage_hourly (start {{time}} NOT NULL, {ROLLUP_COLUMNS})",
    "CREATE INDEX IF NOT EXISTS usage_hourly_start ON usage_hourly (start)",
    f"CREATE TABLE IF NOT EXISTS usage_daily (start {{time}} NOT NULL, {ROLLUP_COLUMNS})",
    "CREATE INDEX IF NOT EXISTS usage_daily_start ON usage_daily (start)",
    "CREATE TABLE IF NOT EXISTS usage_changes (hour {time} NOT NULL, row_id {uuid})",
    "CREATE INDEX IF NOT EXISTS usage_changes_hour ON usage_changes (hour)",
    """CREATE TABLE IF NOT EXISTS usage_state (
        id SMALLINT PRIMARY KEY CHECK (id = 1), rolled_until {time}, sealed_until {time}
    )""",
    "INSERT INTO usage_state (id) VALUES (1) ON CONFLICT DO NOTHING",
)

# A change to an hour that has ended is noted in the transaction that makes it. The clock is read after the statement
# has its lock on the table; see proxy/infrastructure/persistence/usage_rollups.py for what that is good for.
POSTGRES_TRIGGERS = (
    """CREATE OR REPLACE FUNCTION note_usage_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO usage_changes (hour, row_id) VALUES (
            date_trunc('hour', NEW.timestamp, 'UTC'), CASE WHEN TG_OP = 'INSERT' THEN NEW.id END
        );
        RETURN NULL;
    END $$""",
    "DROP TRIGGER IF EXISTS request_logs_usage_change ON request_logs",
    """CREATE TRIGGER request_logs_usage_change AFTER INSERT OR UPDATE ON request_logs FOR EACH ROW
    WHEN (NEW.timestamp < date_trunc('hour', clock_timestamp(), 'UTC')) EXECUTE FUNCTION note_usage_change()""",
)
SQLITE_TRIGGERS = tuple(
    f"""CREATE TRIGGER IF NOT EXISTS request_logs_usage_{event} AFTER {event} ON request_logs
    WHEN NEW.timestamp < strftime('%Y-%m-%d %H:00:00', 'now')
    BEGIN
        INSERT INTO usage_changes (hour, row_id) VALUES (substr(NEW.timestamp, 1, 13) || ':00:00+00:00', {row_id});
    END"""  # noqa: S608
    for event, row_id in (("INSERT", "NEW.id"), ("UPDATE", "NULL"))
)


async def run(statement: str, *arguments: object) -> list[dict]:
    RequestLogs._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    return await RequestLogs.raw(statement, *arguments)


def month_after(day: datetime) -> datetime:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def partition_bounds(oldest: datetime | None, today: datetime) -> list[tuple[datetime, datetime]]:
    """Months for the rows that are there, then days; the gateway makes the next ones as it has been told to."""
    bounds = []
    if oldest is not None and oldest < today:
        start = oldest.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        months = []
        while start < today:
            months.append((start, min(month_after(start), today)))
            start = month_after(start)
        bounds += months[-MOST_MONTHS:]  # rows from before the dawn of time stay in the default partition
    return bounds + [(today + timedelta(days=day), today + timedelta(days=day + 1)) for day in range(DAYS_AHEAD)]


async def partition() -> None:
    if await run("SELECT 1 FROM pg_partitioned_table WHERE partrelid = 'request_logs'::regclass"):
        return
    await run("LOCK TABLE request_logs IN ACCESS EXCLUSIVE MODE")
    indexes = await run(
        """SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index
        WHERE indrelid = 'request_logs'::regclass AND NOT indisprimary"""
    )
    facts = (await run("SELECT min(timestamp) AS oldest, now() AS now FROM request_logs"))[0]
    today = facts["now"].astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    oldest = facts["oldest"].astimezone(UTC) if facts["oldest"] else None

    await run("ALTER TABLE request_logs RENAME TO request_logs_before")
    await run("ALTER TABLE request_logs_before DROP CONSTRAINT IF EXISTS request_logs_pkey")
    await run(
        """CREATE TABLE request_logs (
            LIKE request_logs_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (id, timestamp)
        ) PARTITION BY RANGE (timestamp)"""
    )
    await run("CREATE TABLE request_logs_default PARTITION OF request_logs DEFAULT")
    for start, end in partition_bounds(oldest, today):
        await run(
            f"""CREATE TABLE request_logs_{start:%Y%m%d} PARTITION OF request_logs
            FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"""
        )
    await run("INSERT INTO request_logs SELECT * FROM request_logs_before")
    await run("DROP TABLE request_logs_before")
    for index in indexes:
        await run(index["definition"])


async def upgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001
    is_postgres = isinstance(RequestLogs._meta.db, PostgresEngine)  # noqa: SLF001
    if is_postgres:
        await partition()
    for table in TABLES:
        await run(table.format(**(POSTGRES_TYPES if is_postgres else SQLITE_TYPES)))
    for trigger in POSTGRES_TRIGGERS if is_postgres else SQLITE_TRIGGERS:
        await run(trigger)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    return manager
