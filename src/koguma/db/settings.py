"""Koguma's Django settings, from the environment that a service sets before Django starts.

KOGUMA_DB_DSN         libpq connection string; empty where nothing connects (type checks)
KOGUMA_SECRETS_DIR    boot.key, operator.pub, db.key, django.key
KOGUMA_ENROLLMENT_AUTO, KOGUMA_ENROLLMENT_FLAVOR, KOGUMA_NODES_DOMAIN, KOGUMA_NODES_BOOT_TIMEOUT_S,
KOGUMA_NODES_SSH_AUTHORIZED_KEYS (one a line)    the keys of koguma.toml with these names
KOGUMA_INSPECTION_RULES             a YAML file of inspection rules that nobody can change through the API
KOGUMA_API_AUTH, KOGUMA_API_USERS    how clients of the Ironic API prove who they are, and the user file
KOGUMA_API_REQUIRE_IF_MATCH    the key api.require_if_match
KOGUMA_LIMITS_JSON    the table [limits] of koguma.toml
KOGUMA_BOOT_ATTEMPTS  how often a deploying machine is powered on (3)

Layers above and beside the database are named here by text only: Django loads them.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from koguma.db.sealing import site_secret

_environ = os.environ


def _database(dsn: str) -> dict[str, Any]:
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value not in (None, "")}
    named = {django: parts.pop(libpq, "") for django, libpq in _KEYS.items()}
    return {
        "ENGINE": "koguma.db.postgresql",
        **named,
        "NAME": named["NAME"] or named["USER"] or "koguma",
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"connect_timeout": 10, **parts},
    }


_KEYS = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}

SECRET_KEY = site_secret("django.key", secrets.token_urlsafe(48).encode()).decode()
DEBUG = False
ALLOWED_HOSTS = ["*"]  # the API is reached by address, over a socket and through proxies; no link is built from Host
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "procrastinate.contrib.django",
    "koguma.db",
]
MIDDLEWARE: list[str] = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "koguma.api.urls"
ASGI_APPLICATION = "koguma.api.asgi.application"
DATABASES = {"default": _database(_environ.get("KOGUMA_DB_DSN", ""))}
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024
APPEND_SLASH = False
LOGGING_CONFIG = None  # the services set logs up
SECURE_CONTENT_TYPE_NOSNIFF = True

KOGUMA_SECRETS_DIR = _environ.get("KOGUMA_SECRETS_DIR", "")
KOGUMA_ENROLLMENT_AUTO = _environ.get("KOGUMA_ENROLLMENT_AUTO", "1").lower() in ("1", "true", "yes", "on")
KOGUMA_ENROLLMENT_FLAVOR = _environ.get("KOGUMA_ENROLLMENT_FLAVOR", "compute")
KOGUMA_NODES_DOMAIN = _environ.get("KOGUMA_NODES_DOMAIN", "koguma.internal")
KOGUMA_NODES_BOOT_TIMEOUT_S = float(_environ.get("KOGUMA_NODES_BOOT_TIMEOUT_S", "900"))
KOGUMA_NODES_SSH_AUTHORIZED_KEYS = [
    line.strip() for line in _environ.get("KOGUMA_NODES_SSH_AUTHORIZED_KEYS", "").splitlines() if line.strip()
]
KOGUMA_INSPECTION_RULES = _environ.get("KOGUMA_INSPECTION_RULES", "")
KOGUMA_API_AUTH = _environ.get("KOGUMA_API_AUTH", "none")
KOGUMA_API_REQUIRE_IF_MATCH = _environ.get("KOGUMA_API_REQUIRE_IF_MATCH", "0").lower() in ("1", "true", "yes", "on")
KOGUMA_API_USERS = _environ.get("KOGUMA_API_USERS", "")
KOGUMA_KEYSTONE = _environ.get("KOGUMA_KEYSTONE", "")
KOGUMA_LOADER_DISC_URL = _environ.get("KOGUMA_LOADER_DISC_URL", "")
KOGUMA_BOOT_ATTEMPTS = int(_environ.get("KOGUMA_BOOT_ATTEMPTS", "3"))
KOGUMA_LIMITS = json.loads(_environ.get("KOGUMA_LIMITS_JSON", "{}"))
KOGUMA_POWER_DRIVERS = "koguma.drivers.power.open_power"
"""Finds the power driver of a BMC."""
KOGUMA_MANAGEMENT_DRIVERS = "koguma.drivers.power.open_management"
"""Finds the driver for what else a BMC can do."""
KOGUMA_SWITCH_DRIVERS = "koguma.drivers.switch.open_switch"
"""Finds the driver of a switch."""
KOGUMA_VOLUMES = "koguma.services.volume_site.configured"
"""Finds the site's storage for roots on volumes."""
KOGUMA_DISK_IMAGES = "koguma.services.disk_images.configured"
"""Finds what prepares disk images of others."""
