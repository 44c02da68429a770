"""What the `piccolo` command reads: the engine for DATABASE_URL, and the apps with migrations."""

from piccolo.conf.apps import AppRegistry

from proxy.infrastructure.persistence.engine import engine_for, url_from_environment

DB = engine_for(url_from_environment())

APP_REGISTRY = AppRegistry(apps=["proxy.infrastructure.persistence.piccolo_app"])
