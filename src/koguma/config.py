"""The configuration of one site: `koguma.toml`, overridden by environment variables, validated as a whole.

Services and the command line read it once at start; everything below them receives plain values.
An environment variable is named after its key: `KOGUMA_STATE_DIR`, `KOGUMA_API_LISTEN`, `KOGUMA_BOOT_URL`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from koguma.errors import KogumaError
from koguma.places import configuration_file, default_state_dir

HOST_PORT = r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}"
HostPort = Annotated[str, Field(pattern=f"^{HOST_PORT}$")]


class ConfigError(KogumaError):
    """The configuration cannot be used; the message names the key, the rule and the value."""


class Section(BaseModel):
    """A table of koguma.toml: unknown keys are refused, because a typing error must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Database(Section):
    dsn: str = ""
    """PostgreSQL connection string (libpq). Empty: an embedded PostgreSQL under `state_dir`."""


class Api(Section):
    listen: HostPort = "127.0.0.1:6385"
    """Where the API is served."""
    auth: Literal["none", "http_basic", "keystone"] = "none"
    """How clients of the Ironic API prove who they are."""
    require_if_match: bool = False
    """Refuse changes over the native API that do not say which version they are of (428)."""
    users: Path | None = None
    """The user file of http_basic: `name:hash` lines as `htpasswd -B` writes them."""

    @model_validator(mode="after")
    def _http_basic_has_users(self) -> Self:
        if self.auth == "http_basic" and self.users is None:
            raise ValueError("auth http_basic needs a user file (users)")
        return self


class Boot(Section):
    listen: HostPort = "0.0.0.0:8080"
    """Where the stage-1 API and the artifacts are served."""
    url: str = Field(default="http://127.0.0.1:8080", pattern=r"^http://[^/]+$")
    """How machines on the provisioning network reach `listen`."""
    media_url: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """How BMCs reach `listen`, for machines that boot from virtual media. Empty: as machines do (`url`)."""
    interface: str = ""
    """Interface for DHCP and TFTP. Empty: neither is served (another DHCP server points machines here)."""
    tftp_dir: Path | None = None
    """Holds undionly.kpxe, ipxe.efi and ipxe.iso. Empty: the distribution's iPXE package."""
    server: str = ""
    """The server's address: `unix:PATH` or `http(s)://…`. Empty: the socket under `state_dir`."""
    namespace: str = ""
    """Network namespace to run in; the lab sets it."""
    nfs: str = ""
    """`HOST:/EXPORT` of the read-only NFS export of `nfs_dir`, for flavors whose root method is nfs."""
    nfs_dir: Path | None = None
    """The exported directory, kept filled with the trees of nfs flavors. Empty: `<state_dir>/nfs`."""
    poll_s: float = Field(default=2.0, gt=0, le=60)
    """How often to ask the server whether the snapshot changed."""


class Worker(Section):
    namespace: str = ""
    """Network namespace to run in; the lab sets it."""
    concurrency: int = Field(default=8, ge=1, le=1000)


class Limits(Section):
    """0: no limit. A node's rack is its property or variable `rack`, else its chassis."""

    deploys: int = Field(default=0, ge=0)
    """Deployments at once."""
    deploys_per_rack: int = Field(default=0, ge=0)
    cleans: int = Field(default=0, ge=0)
    """Cleanings at once, those after a use included."""
    cleans_per_rack: int = Field(default=0, ge=0)
    power_actions_per_s: float = Field(default=0, ge=0)
    power_actions_per_s_per_rack: float = Field(default=0, ge=0)


class Images(Section):
    repository: Path | None = None
    """Empty: `<state_dir>/images`."""


class Enrollment(Section):
    auto: bool = True
    """Bring a newly registered node to active without a hand touching it."""
    flavor: str = "compute"
    """The flavor a newly registered node gets."""


class Keystone(Section):
    """The identity service that proves tokens when `api.auth` is keystone, and Koguma's own account there."""

    auth_url: str = ""
    """Where Keystone answers: `https://keystone.example.org/v3`."""
    www_authenticate_uri: str = ""
    """Where clients are told to get tokens. Empty: `auth_url`."""
    username: str = "koguma"
    password: str = ""
    project_name: str = "service"
    user_domain_name: str = "Default"
    project_domain_name: str = "Default"
    service_project_name: str = "service"
    """Members of this project with the role `service`, such as Nova, are trusted with the whole system."""
    region_name: str = ""
    interface: str = "internal"
    """The kind of Keystone's endpoint that is asked: internal, public or admin."""
    cafile: str = ""
    """The authority that signed Keystone's certificate. Empty: a public one."""
    memcached_servers: list[str] = []
    """Where proven tokens are shared between servers. Empty: each keeps its own."""
    token_cache_time: int = Field(default=300, ge=-1)
    """Seconds for which a token once proven is not asked about again."""


class Inspection(Section):
    rules: Path | None = None
    """A YAML file of inspection rules in Ironic's form, applied beside those of the API."""


class Nodes(Section):
    domain: str = "koguma.internal"
    ssh_authorized_keys: list[str] = []
    """Public keys for root on every node, beside Koguma's own operator key."""
    boot_timeout_s: float = Field(default=900, gt=0)
    """From power-on to `installed`; a boot that takes longer has failed."""


class Volumes(Section):
    driver: str = ""
    """The storage of roots on volumes (root method iscsi): tgt, cinder. Empty: there is none."""
    address: str = ""
    """Where the driver finds it; for tgt a directory on the worker's host (empty: `<state_dir>/volumes`), for cinder
    the name of a cloud in openstacksdk's clouds.yaml.
    """
    portal: str = Field(default="", pattern=f"^({HOST_PORT})?$")
    """`HOST:PORT`, where machines find it. Cinder says it itself."""
    size_gib: int = Field(default=10, ge=1)
    """Of a root volume whose flavor does not say (`root_bytes` of its requirements)."""

    @model_validator(mode="after")
    def _machines_find_the_storage(self) -> Self:
        if self.driver == "tgt" and not self.portal:
            raise ValueError("driver tgt needs the address where machines find it (portal)")
        if self.driver == "cinder" and not self.address:
            raise ValueError("driver cinder needs the name of a cloud in clouds.yaml (address)")
        return self


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Lab(Section):
    name: str = Field(default="lab", pattern=r"^[a-z][a-z0-9]{0,5}$")
    """Prefix of the lab's namespaces and interfaces; short, because Linux allows interface names of 15 bytes."""


class Config(Section):
    state_dir: Path = default_state_dir()
    database: Database = Database()
    api: Api = Api()
    boot: Boot = Boot()
    worker: Worker = Worker()
    limits: Limits = Limits()
    images: Images = Images()
    enrollment: Enrollment = Enrollment()
    inspection: Inspection = Inspection()
    keystone: Keystone = Keystone()
    nodes: Nodes = Nodes()
    volumes: Volumes = Volumes()
    log: Log = Log()
    lab: Lab = Lab()

    @model_validator(mode="after")
    def _paths_are_absolute(self) -> Self:
        if not self.state_dir.is_absolute():
            raise ValueError(f"state_dir must be an absolute path, got {str(self.state_dir)!r}")
        return self

    @property
    def repository(self) -> Path:
        return self.images.repository or self.state_dir / "images"

    @model_validator(mode="after")
    def _keystone_is_somewhere(self) -> Self:
        if self.api.auth == "keystone" and not (self.keystone.auth_url and self.keystone.password):
            raise ValueError("auth keystone needs keystone.auth_url and keystone.password")
        return self

    @property
    def nfs_dir(self) -> Path:
        return self.boot.nfs_dir or self.state_dir / "nfs"

    @property
    def run_dir(self) -> Path:
        """Sockets and pid files."""
        return self.state_dir / "run"

    @property
    def secrets_dir(self) -> Path:
        """`boot.key` (shared by server and boot service), `operator` and `operator.pub` (SSH), mode 0700."""
        return self.state_dir / "secrets"

    @property
    def server_socket(self) -> Path:
        return self.run_dir / "server.sock"

    @property
    def server_address(self) -> str:
        """What the boot service calls: `unix:PATH` or a URL."""
        return self.boot.server or f"unix:{self.server_socket}"


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the file (`path`, else as `koguma.places` finds it), then the environment.

    Raises ConfigError that names the key, the rule, the value and the place.
    """
    place, values = _read_file(path or configuration_file(environ))
    sources = dict.fromkeys(_flatten(values), place)
    for name, key, text in _overrides(environ):
        _put(values, key, text)
        sources[".".join(key)] = name
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, sources, place) for item in error.errors())) from None


def _read_file(path: Path | None) -> tuple[str, dict[str, Any]]:
    if path is None:
        return "defaults", {}
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration file cannot be read: {error.strerror} ({path})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file must be TOML: {error} ({path})") from error


def _overrides(environ: Mapping[str, str]) -> list[tuple[str, tuple[str, ...], Any]]:
    """The environment variables that name a key, as (variable, key path, value)."""
    found: list[tuple[str, tuple[str, ...], Any]] = []
    for section, field in Config.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            keys = [(section, key, inner.annotation) for key, inner in annotation.model_fields.items()]
        else:
            keys = [("", section, annotation)]
        for table, key, kind in keys:
            name = "_".join(part for part in ("KOGUMA", table, key) if part).upper()
            if name in environ:
                text = environ[name]
                value: Any = [item.strip() for item in text.split(",") if item.strip()] if kind == list[str] else text
                found.append((name, (table, key) if table else (key,), value))
    return found


def _put(values: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    for part in key[:-1]:
        table = values.setdefault(part, {})
        if not isinstance(table, dict):
            return  # the validation of the whole says that this key must be a table
        values = table
    values[key[-1]] = value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        names.append(prefix + key)
        if isinstance(value, Mapping):
            names.extend(_flatten(value, f"{prefix}{key}."))
    return names


def _explain(item: Any, sources: Mapping[str, str], place: str) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "configuration"
    where = sources.get(key, place)
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key ({where})"
    rule = item["msg"].removeprefix("Value error, ")
    shown = "" if item["type"] == "value_error" else f", got {item['input']!r}"
    return f"{key}: {rule}{shown} ({where})"
