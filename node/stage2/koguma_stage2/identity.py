"""Who the machine is: host name, hosts, resolver, SSH keys. Pure: computes contents and modes, writes nothing."""

from __future__ import annotations

from typing import Any

from koguma_stage2 import places
from koguma_stage2.detail import own_address

HEAD = "# Written by koguma-render from this boot's detail.\n"


def identity_files(detail: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(content, mode) by path."""
    files = {
        places.HOSTNAME: (detail["hostname"] + "\n", 0o644),
        places.HOSTS: (hosts(detail), 0o644),
        places.RESOLV_CONF: (resolv_conf(detail), 0o644),
    }
    if detail.get("ntp_servers"):
        sources = "".join(f"server {server} iburst\n" for server in detail["ntp_servers"])
        files[places.CHRONY] = (HEAD + sources, 0o644)
        files[places.TIMESYNCD] = (f"{HEAD}[Time]\nNTP={' '.join(detail['ntp_servers'])}\n", 0o644)
    if detail.get("ssh_authorized_keys"):
        lines = "".join(f"{key.strip()}\n" for key in detail["ssh_authorized_keys"])
        files[f"{places.ROOT_SSH}/authorized_keys"] = (lines, 0o600)
    for name, key in (detail.get("ssh_host_keys") or {}).items():
        files[f"{places.SSH}/{name}"] = (key.rstrip("\n") + "\n", 0o644 if name.endswith(".pub") else 0o600)
    return files


def hosts(detail: dict[str, Any]) -> str:
    """/etc/hosts with this machine and every member, whose names resolve even when no DNS server answers."""
    domain = detail.get("domain") or ""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    known = {member["name"]: member["address"] for member in detail.get("members", [])}
    own = own_address(detail)
    if own:
        known[detail["hostname"]] = own
    for name, address in sorted(known.items()):
        lines.append(f"{address} {name}.{domain} {name}" if domain else f"{address} {name}")
    return HEAD + "\n".join(lines) + "\n"


def resolv_conf(detail: dict[str, Any]) -> str:
    lines = [f"search {detail['domain']}"] if detail.get("domain") else []
    lines += [f"nameserver {server}" for server in detail.get("dns_servers", [])]
    return HEAD + "".join(f"{line}\n" for line in lines)
