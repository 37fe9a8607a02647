"""What every process does first: read the configuration, set up logs, make the site's secrets, prepare Django."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from koguma import config as configuration
from koguma import logs
from koguma.config import Config
from koguma.services import secrets

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="koguma.toml; otherwise $KOGUMA_CONFIG, ./koguma.toml, /etc/koguma/koguma.toml"),
]


def begin(process: str, path: Path | None) -> Config:
    """The validated configuration; afterwards logs go to standard error and the secrets exist."""
    config = configuration.load(path)
    logs.set_up(process, config.log.level, config.log.format)
    config.state_dir.mkdir(parents=True, exist_ok=True)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    secrets.ensure(config.secrets_dir)
    return config


def prepare_django(config: Config, dsn: str) -> None:
    """Point Koguma's Django settings at this site and set Django up."""
    os.environ["KOGUMA_DB_DSN"] = dsn
    os.environ["KOGUMA_SECRETS_DIR"] = str(config.secrets_dir)
    os.environ["KOGUMA_API_AUTH"] = config.api.auth
    os.environ["KOGUMA_API_REQUIRE_IF_MATCH"] = "1" if config.api.require_if_match else "0"
    os.environ["KOGUMA_API_USERS"] = str(config.api.users.absolute()) if config.api.users else ""
    if config.api.auth == "keystone":
        os.environ["KOGUMA_KEYSTONE"] = config.keystone.model_dump_json()
    os.environ["KOGUMA_INSPECTION_RULES"] = str(config.inspection.rules.absolute()) if config.inspection.rules else ""
    os.environ["KOGUMA_ENROLLMENT_AUTO"] = "1" if config.enrollment.auto else "0"
    os.environ["KOGUMA_ENROLLMENT_FLAVOR"] = config.enrollment.flavor
    os.environ["KOGUMA_NODES_DOMAIN"] = config.nodes.domain
    media_url = config.boot.media_url or config.boot.url
    os.environ["KOGUMA_LOADER_DISC_URL"] = f"{media_url}/loaders/ipxe.iso"
    os.environ["KOGUMA_NODES_BOOT_TIMEOUT_S"] = str(config.nodes.boot_timeout_s)
    os.environ["KOGUMA_LIMITS_JSON"] = config.limits.model_dump_json()
    os.environ["KOGUMA_NODES_SSH_AUTHORIZED_KEYS"] = "\n".join(config.nodes.ssh_authorized_keys)
    os.environ["KOGUMA_VOLUMES_DRIVER"] = config.volumes.driver
    os.environ["KOGUMA_VOLUMES_ADDRESS"] = config.volumes.address or str(config.state_dir / "volumes")
    os.environ["KOGUMA_VOLUMES_PORTAL"] = config.volumes.portal
    os.environ["KOGUMA_VOLUMES_IMAGES"] = str(config.state_dir / "volume-images")
    os.environ["KOGUMA_VOLUMES_SIZE_BYTES"] = str(config.volumes.size_gib << 30)
    os.environ["KOGUMA_REPOSITORY_DIR"] = str(config.repository)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "koguma.db.settings")
    import django  # noqa: PLC0415 - reads the environment set above

    django.setup()
