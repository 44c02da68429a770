"""What the `piccolo` command reads: the engine for DATABASE_URL, and the apps with migrations."""

import os

from piccolo.conf.apps import AppRegistry

from proxy.config.environment import variable
from proxy.infrastructure.persistence.engine import engine_for, url_or_default

DB = engine_for(url_or_default(variable("DATABASE_URL", os.environ), os.environ.get("LLMGATEWAY_DATA_DIR")))

APP_REGISTRY = AppRegistry(apps=["proxy.infrastructure.persistence.piccolo_app"])
