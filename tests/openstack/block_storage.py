"""A real Cinder and a real Glance behind a real Keystone, on SQLite and loopback ports, as processes of a test.

Cinder's API, scheduler and volume manager run in one process and speak through oslo.messaging's `fake` transport. What
they manage is a back end of our own below: it keeps no data, but exports volumes as Cinder's iSCSI drivers do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.openstack.released import STOP_TIMEOUT_S, free_address
from tests.openstack.run_keystone import PASSWORD, Keystone, keystone

PACKAGES = ("cinder", "glance", "keystone", "keystonemiddleware")
START_S = 180
CLOUD = "lab"
PROJECT = "koguma-volumes"

AUTHTOKEN = """
[keystone_authtoken]
www_authenticate_uri = {auth_url}
auth_url = {auth_url}
auth_type = password
username = services
password = {password}
user_domain_id = default
project_domain_id = default
project_name = service
"""
GLANCE_CONF = """
[DEFAULT]
enabled_backends = files:file
bind_host = 127.0.0.1
use_stderr = true
log_file =
[database]
connection = sqlite:///{work}/glance.sqlite
[paste_deploy]
flavor = keystone
config_file = {paste}
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {work}/images
[oslo_concurrency]
lock_path = {work}/locks
[os_glance_staging_store]
filesystem_store_datadir = {work}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {work}/tasks
"""
CINDER_CONF = """
[DEFAULT]
auth_strategy = keystone
transport_url = fake://
rpc_response_timeout = 30
state_path = {work}
api_paste_config = {paste}
glance_api_servers = http://{glance}
enabled_backends = lab
scheduler_driver_init_wait_time = 1
resource_query_filters_file = {paste.parent}/resource_filters.json
image_conversion_dir = {work}/conversion
periodic_interval = 5
use_stderr = true
host = lab
osapi_volume_workers = 1
[database]
connection = sqlite:///{work}/cinder.sqlite
[oslo_concurrency]
lock_path = {work}/locks
[coordination]
backend_url = file://{work}/coordination
[lab]
volume_driver = lab_backend.LabDriver
volume_backend_name = lab
"""
LAB_BACKEND = '''
"""A back end without data: exports as Cinder's own iSCSI drivers describe them. A volume's metadata says how."""
import secrets, string
from cinder.volume import driver

class LabDriver(driver.ISCSIDriver):
    VERSION = "1"
    CI_WIKI_NAME = "none"

    def check_for_setup_error(self): pass
    def create_volume(self, volume): pass
    def delete_volume(self, volume): pass
    def ensure_export(self, context, volume): pass
    def remove_export(self, context, volume): pass

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        for _ in image_service.download(context, image_meta["id"]):
            pass
        return {}, True

    def create_export(self, context, volume, connector):
        secret = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))
        update = {"provider_location": "192.0.2.7:3260,1 iqn.2010-10.org.openstack:volume-%s 0" % volume.id}
        if volume.metadata.get("lab_chap") != "no":
            update["provider_auth"] = volume.provider_auth or "CHAP LabUser%s %s" % (volume.id[:8], secret)
        return update

    def initialize_connection(self, volume, connector):
        found = super().initialize_connection(volume, connector)
        found["driver_volume_type"] = volume.metadata.get("lab_type", "iscsi")
        return found

    def get_volume_stats(self, refresh=False):
        pool = {"pool_name": "lab", "total_capacity_gb": 1000, "free_capacity_gb": 900, "reserved_percentage": 0}
        return {"volume_backend_name": "lab", "vendor_name": "Koguma", "driver_version": "1",
                "storage_protocol": "iSCSI", "pools": [pool]}
'''
CINDER_SERVE = """
import sys
host, port = sys.argv.pop(1).split(":")
import oslo_service.backend as backend
backend.init_backend(backend.BackendType.THREADING)
from cinder import service
from cinder.wsgi.wsgi import initialize_application
application = initialize_application()
for words in ({"binary": "cinder-scheduler"},
              {"binary": "cinder-volume", "host": "lab@lab", "service_name": "lab", "coordination": True}):
    service.Service.create(**words).start()
"""
GLANCE_SERVE = """
import sys
host, port = sys.argv.pop(1).split(":")
from glance.common.wsgi_app import init_app
application = init_app()
"""
SERVE = """
from socketserver import ThreadingMixIn
from wsgiref.simple_server import make_server, WSGIRequestHandler, WSGIServer
class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass
class Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
print("serving", flush=True)
make_server(host, int(port), application, server_class=Threads, handler_class=Quiet).serve_forever()
"""


@contextlib.contextmanager
def block_storage(work: Path, python: Path) -> Iterator[Path]:
    """Fresh services; the clouds.yaml by which openstacksdk finds them, as the cloud `lab`."""
    with _directory(work) as state, keystone(state, python) as auth_url, contextlib.ExitStack() as stack:
        admin = Keystone(auth_url)
        admin.user("services", PASSWORD, [("admin", {"project": "service"}), ("service", {"project": "service"})])
        admin.user("koguma", PASSWORD, [("member", {"project": PROJECT})])
        authtoken = AUTHTOKEN.format(auth_url=auth_url, password=PASSWORD)
        packages = python.parent.parent
        values = {"work": state, "glance": free_address(), "cinder": free_address()}
        for name, template, paste in (
            ("glance-api", GLANCE_CONF, packages / "etc/glance/glance-api-paste.ini"),
            ("cinder", CINDER_CONF, packages / "etc/cinder/api-paste.ini"),
        ):
            (state / f"{name}.conf").write_text(template.format(**values, paste=paste) + authtoken)
        for name in ("images", "staging", "tasks", "locks", "conversion", "coordination"):
            (state / name).mkdir()
        (state / "lab_backend.py").write_text(LAB_BACKEND)
        admin.service("image", f"http://{values['glance']}")
        admin.service("block-storage", f"http://{values['cinder']}/v3")
        environ = {
            **os.environ,
            "PYTHONPATH": str(state),
            "PYTHONWARNINGS": "ignore",
            "OS_CINDER_DISABLE_EVENTLET_PATCHING": "1",
            "OS_GLANCE_CONFIG_DIR": str(state),
        }
        for program, words in (
            ("glance-manage", ["--config-file", f"{state}/glance-api.conf", "db_sync"]),
            ("cinder-manage", ["--config-file", f"{state}/cinder.conf", "db", "sync"]),
        ):
            with (state / f"{program}.log").open("wb") as log:
                subprocess.run(
                    [str(python.with_name(program)), *words], check=True, env=environ, stdout=log, stderr=log
                )
        for name, program, arguments in (
            ("glance", GLANCE_SERVE, []),
            ("cinder", CINDER_SERVE, ["--config-file", f"{state}/cinder.conf"]),
        ):
            (state / f"serve_{name}.py").write_text(program + SERVE)
            command = [str(python), str(state / f"serve_{name}.py"), str(values[name]), *arguments]
            stack.enter_context(_process(command, environ, state / f"{name}.log", f"http://{values[name]}/"))
        clouds = state / "clouds.yaml"
        clouds.write_text(
            f"clouds:\n  {CLOUD}:\n    auth:\n      auth_url: {auth_url}\n      username: koguma\n"
            f"      password: {PASSWORD}\n      project_name: {PROJECT}\n      user_domain_id: default\n"
            "      project_domain_id: default\n    region_name: RegionOne\n    interface: public\n"
        )
        yield clouds


@contextlib.contextmanager
def _directory(work: Path) -> Iterator[Path]:
    path = work / f"services-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _process(command: list[str], environ: dict[str, str], log: Path, url: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, trust_env=False).status_code in {200, 300}:
                    break
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{log.stem} must answer; it said:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.3)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
