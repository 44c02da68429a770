"""Organisations, teams and keys; their budgets and rate limits; and the log of who changed what.

Lists and free-form values are JSON text, amounts decimal text, money that is counted whole picodollars. Every change to
what processes keep in memory is noted in `access_changes` by a trigger, and told to those who listen on PostgreSQL.
Running it again, or on a database where a part of it is done, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-23T05:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "keys, budgets, limits and their audit log"

POSTGRES_TYPES = {"time": "TIMESTAMPTZ", "uuid": "UUID", "sequence": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"}
SQLITE_TYPES = {"time": "TEXT", "uuid": "TEXT", "sequence": "INTEGER PRIMARY KEY AUTOINCREMENT"}

TABLES = {
    "organisations": """
        id {uuid} PRIMARY KEY,
        name VARCHAR(255) NOT NULL UNIQUE,
        models TEXT,
        metadata TEXT NOT NULL DEFAULT '{{}}',
        disabled BOOLEAN NOT NULL DEFAULT false,
        created_at {time} NOT NULL""",
    "teams": """
        id {uuid} PRIMARY KEY,
        organisation_id {uuid} REFERENCES organisations (id),
        name VARCHAR(255) NOT NULL UNIQUE,
        models TEXT,
        metadata TEXT NOT NULL DEFAULT '{{}}',
        disabled BOOLEAN NOT NULL DEFAULT false,
        created_at {time} NOT NULL""",
    "virtual_keys": """
        id {uuid} PRIMARY KEY,
        hash VARCHAR(64) NOT NULL UNIQUE,
        previous_hash VARCHAR(64) UNIQUE,
        previous_until {time},
        hint VARCHAR(32) NOT NULL,
        name VARCHAR(255) NOT NULL,
        owner VARCHAR(255),
        role VARCHAR(64) NOT NULL,
        calls_models BOOLEAN NOT NULL DEFAULT false,
        organisation_id {uuid} REFERENCES organisations (id),
        team_id {uuid} REFERENCES teams (id),
        models TEXT,
        endpoints TEXT,
        tags TEXT NOT NULL DEFAULT '[]',
        metadata TEXT NOT NULL DEFAULT '{{}}',
        priority SMALLINT NOT NULL DEFAULT 1,
        expires_at {time},
        disabled BOOLEAN NOT NULL DEFAULT false,
        created_at {time} NOT NULL,
        created_by VARCHAR(255) NOT NULL""",
    "budgets": """
        id {uuid} PRIMARY KEY,
        name VARCHAR(255) NOT NULL,
        scope VARCHAR(64) NOT NULL,
        subject_id VARCHAR(255) NOT NULL,
        amount_usd VARCHAR(64) NOT NULL,
        period VARCHAR(64) NOT NULL,
        window_seconds BIGINT,
        is_hard BOOLEAN NOT NULL DEFAULT true,
        warn_percent SMALLINT NOT NULL DEFAULT 80,
        created_at {time} NOT NULL""",
    "rate_limits": """
        id {uuid} PRIMARY KEY,
        scope VARCHAR(64) NOT NULL,
        subject_id VARCHAR(255) NOT NULL,
        requests_per_minute BIGINT,
        tokens_per_minute BIGINT,
        input_tokens_per_minute BIGINT,
        output_tokens_per_minute BIGINT,
        concurrent_requests BIGINT,
        created_at {time} NOT NULL""",
    "budget_spend": """
        budget_id {uuid} NOT NULL,
        subject_id VARCHAR(255) NOT NULL,
        bucket {time} NOT NULL,
        picodollars BIGINT NOT NULL,
        PRIMARY KEY (budget_id, subject_id, bucket)""",
    "budget_leases": """
        budget_id {uuid} NOT NULL,
        subject_id VARCHAR(255) NOT NULL,
        holder VARCHAR(255) NOT NULL,
        granted BIGINT NOT NULL,
        booked BIGINT NOT NULL DEFAULT 0,
        held BIGINT NOT NULL DEFAULT 0,
        recalled BOOLEAN NOT NULL DEFAULT false,
        renewed_at {time} NOT NULL,
        PRIMARY KEY (budget_id, subject_id, holder)""",
    "audit_log": """
        id {uuid} PRIMARY KEY,
        timestamp {time} NOT NULL,
        actor VARCHAR(255) NOT NULL,
        action VARCHAR(64) NOT NULL,
        object_kind VARCHAR(64) NOT NULL,
        object_id VARCHAR(255) NOT NULL,
        before TEXT,
        after TEXT,
        request_id VARCHAR(128)""",
    "access_changes": """
        sequence {sequence},
        kind VARCHAR(64) NOT NULL,
        object_id VARCHAR(255) NOT NULL""",
}
INDEXES = (
    "CREATE INDEX IF NOT EXISTS virtual_keys_team ON virtual_keys (team_id)",
    "CREATE INDEX IF NOT EXISTS virtual_keys_organisation ON virtual_keys (organisation_id)",
    "CREATE INDEX IF NOT EXISTS budgets_subject ON budgets (scope, subject_id)",
    "CREATE INDEX IF NOT EXISTS rate_limits_subject ON rate_limits (scope, subject_id)",
    "CREATE INDEX IF NOT EXISTS budget_leases_holder ON budget_leases (holder)",
    "CREATE INDEX IF NOT EXISTS audit_log_timestamp ON audit_log (timestamp)",
    "CREATE INDEX IF NOT EXISTS audit_log_object ON audit_log (object_id)",
)
WATCHED = ("organisations", "teams", "virtual_keys", "budgets", "rate_limits")

POSTGRES_FUNCTION = """CREATE OR REPLACE FUNCTION note_access_change() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE changed_id TEXT := CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END;
    BEGIN
        INSERT INTO access_changes (kind, object_id) VALUES (TG_TABLE_NAME, changed_id);
        PERFORM pg_notify('llmgateway_access', TG_TABLE_NAME || ':' || changed_id);
        RETURN NULL;
    END $$"""


def postgres_triggers(table: str) -> list[str]:
    return [
        f"DROP TRIGGER IF EXISTS {table}_access_change ON {table}",
        f"""CREATE TRIGGER {table}_access_change AFTER INSERT OR UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION note_access_change()""",
    ]


def sqlite_triggers(table: str) -> list[str]:
    return [
        f"""CREATE TRIGGER IF NOT EXISTS {table}_access_{event.lower()} AFTER {event} ON {table}
        BEGIN INSERT INTO access_changes (kind, object_id) VALUES ('{table}', {row}.id); END"""  # noqa: S608
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
    ]


class VirtualKeys(Table, tablename="virtual_keys"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


async def upgrade() -> None:
    VirtualKeys._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    is_postgres = isinstance(VirtualKeys._meta.db, PostgresEngine)  # noqa: SLF001
    types = POSTGRES_TYPES if is_postgres else SQLITE_TYPES
    for name, columns in TABLES.items():
        await VirtualKeys.raw(f"CREATE TABLE IF NOT EXISTS {name} ({columns.format_map(types)})")
    for statement in INDEXES:
        await VirtualKeys.raw(statement)
    if is_postgres:
        await VirtualKeys.raw(POSTGRES_FUNCTION)
    for table in WATCHED:
        for statement in postgres_triggers(table) if is_postgres else sqlite_triggers(table):
            await VirtualKeys.raw(statement)


async def downgrade() -> None:
    VirtualKeys._meta.refresh_db()  # noqa: SLF001
    for name in reversed(TABLES):
        await VirtualKeys.raw(f"DROP TABLE IF EXISTS {name}")
    if isinstance(VirtualKeys._meta.db, PostgresEngine):  # noqa: SLF001
        await VirtualKeys.raw("DROP FUNCTION IF EXISTS note_access_change()")


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
