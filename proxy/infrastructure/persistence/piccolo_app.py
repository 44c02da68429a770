"""Tells Piccolo where the gateway's tables and migrations are."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

import piccolo_migrations
from proxy.infrastructure.persistence.migrations import APP_NAME
from proxy.infrastructure.persistence.tables import ModelPricingTable, RequestLogTable

APP_CONFIG = AppConfig(
    app_name=APP_NAME,
    migrations_folder_path=str(Path(piccolo_migrations.__file__).parent),
    table_classes=[RequestLogTable, ModelPricingTable],
    migration_dependencies=[],
)
