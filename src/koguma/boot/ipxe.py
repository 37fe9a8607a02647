"""iPXE scripts: text only, from values that were checked before they came here.

A machine's own words (its UUID and MAC) are matched against strict forms first, and names of nodes and labels by the
rules of their models, so nothing a machine sends can become a command of a script.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from koguma.boot.labels import Stage1

RETRY_S = 5
STAGE1_ARGS = "quiet cryptomgr.notests"
"""Its kernel takes 6 s to start under emulation, 1 of them for self-tests of ciphers that stage 1 never uses."""
MENU_PROMPT_MS = 300
"""How long the console waits for the key of the menu; part of every boot, so short."""


@dataclass(frozen=True)
class Boot:
    """One boot of one machine, as its scripts and kernels need it."""

    url: str
    """The boot service, as machines reach it, without a slash at the end."""
    uuid: str
    token: str
    mac: str
    console_args: str = ""


def entry(url: str) -> str:
    """The first script, the same for every machine: it tells who asks, and asks again as long as nobody answers."""
    return _script(
        ":ask",
        f"chain --replace {url}/ipxe/${{uuid}}/script?mac=${{netX/mac}} || goto again",
        ":again",
        f"echo Koguma does not boot this machine now, asking again in {RETRY_S} seconds",
        f"sleep {RETRY_S}",
        # A fresh DHCP exchange: the machine may have been given a reserved address since.
        "ifclose",
        "dhcp && goto ask || goto again",
    )


def stage1(boot: Boot, build: Stage1, mode: str, title: str, *, menu: bool) -> str:
    """Load stage 1; `mode` is register, boot, rescue, deploy or clean."""
    files = f"{boot.url}/artifacts"
    arguments = f"koguma.mode={mode} koguma.url={boot.url} koguma.uuid={boot.uuid}"
    secrets = f"koguma.token={boot.token} koguma.mac={boot.mac}"
    return _script(
        f"echo Koguma: {title}",
        *(_menu_prompt(boot) if menu else ()),
        *_load(
            f"{files}/{build.path}/kernel",
            f"{arguments} {secrets} {STAGE1_ARGS} {boot.console_args}",
            [f"{files}/{initrd}" for initrd in build.initrds(mode)],
        ),
    )


def local(url: str, loader: str | None, title: str) -> str:
    """Boot the machine's own disk. A BIOS is asked for its first one. UEFI gets `loader` (below /artifacts/), because
    leaving iPXE has it try the network by its other protocols; without one it goes on to its next boot entry.
    """
    return _script(
        f"echo Koguma: {title}",
        "iseq ${platform} efi && goto efi ||",
        "sanboot --no-describe --drive 0x80 ||",
        # The other half of a mirror, where the first disk is there and empty.
        "sanboot --no-describe --drive 0x81 ||",
        "exit",
        ":efi",
        *([f"chain {url}/artifacts/{loader} ||"] if loader else []),
        "exit",
    )


def direct(boot: Boot, commit: str, kernel_args: str, title: str) -> str:
    """Boot the artifact without kexec: what stage 1 would have handed over is a second initramfs."""
    files = f"{boot.url}/artifacts/{commit}"
    handover = f"{boot.url}/ipxe/{boot.uuid}/handover?token={boot.token}"
    return _script(
        f"echo Koguma: {title} (without kexec)",
        *_menu_prompt(boot),
        *_load(f"{files}/kernel", f"boot=koguma {kernel_args}", [f"{files}/initrd", handover]),
    )


def menu(boot: Boot, labels: Iterable[str], default: str) -> str:
    """All labels, the node's own chosen after half a minute."""
    names = list(labels)
    items = [f"item l{number} {name}" for number, name in enumerate(names)]
    chosen = names.index(default) if default in names else 0
    base = f"{boot.url}/ipxe/{boot.uuid}/script?mac={boot.mac}"
    return _script(
        "menu Koguma: choose the label of this boot",
        *items,
        f"choose --default l{chosen} --timeout 30000 number && goto ${{number}} || goto l{chosen}",
        *(
            line
            for number, name in enumerate(names)
            for line in (f":l{number}", f"chain --replace {base}&choose={name} || goto l{chosen}")
        ),
    )


def refuse(title: str, reason: str) -> str:
    """Say why the machine may not boot, wait, and ask again after a reset."""
    return _script(f"echo Koguma: {title}: {_words(reason)}", "sleep 30", "reboot")


def _menu_prompt(boot: Boot) -> tuple[str, ...]:
    menu_url = f"{boot.url}/ipxe/{boot.uuid}/menu?mac={boot.mac}"
    return (
        f"prompt --key m --timeout {MENU_PROMPT_MS} Press m for the menu of labels || goto load",
        f"chain --replace {menu_url}",
        ":load",
    )


def _load(kernel: str, arguments: str, initrds: list[str]) -> list[str]:
    names = [f"initrd{number}" for number in range(len(initrds))]
    return [
        # An EFI kernel finds its initramfs by these names; a BIOS one gets them appended in this order.
        f"kernel {kernel} {' '.join(f'initrd={name}' for name in names)} {arguments} || goto failed",
        *(f"initrd --name {name} {url} || goto failed" for name, url in zip(names, initrds, strict=True)),
        "boot || goto failed",
        ":failed",
        f"echo Koguma: the files could not be loaded, trying again in {RETRY_S} seconds",
        f"sleep {RETRY_S}",
        "reboot",
    ]


def _words(text: str) -> str:
    """Plain words for `echo`: no variables, no comments, no line breaks."""
    return "".join(char if char.isascii() and (char.isalnum() or char in " .,:;'()/_-") else " " for char in text)


def _script(*lines: str) -> str:
    return "\n".join(("#!ipxe", *lines, ""))
