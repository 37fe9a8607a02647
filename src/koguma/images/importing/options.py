"""What an import may contain and how large it may be. The content of an import is a stranger's until it is a commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from koguma.images.errors import LimitError, TreeError
from koguma.images.trees import CHARACTER, Xattrs

GIBIBYTE = 1024**3
PATH_MAX_BYTES = 4095
"""What Linux takes."""
DEPTH_LIMIT = 2000
"""What fits in such a path."""
_ATTRIBUTE_BYTES = 128
"""What an attribute takes in memory besides its name and value."""
_STANDARD_DEVICES = {
    (1, 3): "null", (1, 5): "zero", (1, 7): "full", (1, 8): "random", (1, 9): "urandom",
    (5, 0): "tty", (5, 1): "console", (5, 2): "ptmx", (10, 200): "tun", (10, 229): "fuse",
}  # fmt: skip


class Devices(Enum):
    """Which device nodes an archive may hold. A directory's are always kept: whoever reads it has them already."""

    STANDARD = "standard"
    """Only those that every container has (null, zero, tty …); others are refused: a disk's node opens that disk."""
    KEEP = "keep"
    """All."""
    REFUSE = "refuse"
    """None."""


class Repeated(Enum):
    """What a name that comes twice in one archive means."""

    REFUSE = "refuse"
    """An error: what one program checks must not differ from what another one unpacks."""
    LAST = "last"
    """The last one counts, as for `tar --append`."""


def devices_named(word: str) -> Devices:
    """The policy of this name. Raises TreeError that lists the names."""
    return Devices(_known(word, [item.value for item in Devices], "devices"))


def repeated_named(word: str) -> Repeated:
    return Repeated(_known(word, [item.value for item in Repeated], "repeated"))


def _known(word: str, words: list[str], what: str) -> str:
    if word not in words:
        raise TreeError(f"--{what} is one of {', '.join(words)}, got {word!r}")
    return word


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an import may be. All are checked while it is read, before the harm is done."""

    bytes_max: int = 64 * GIBIBYTE
    """Of all files together, holes included, and of what an archive decompresses to."""
    entries_max: int = 2_000_000
    depth_max: int = 500
    ratio_max: int = 200
    """Decompressed bytes for a compressed one, over the whole of a stream; looked at after the first 256 MiB."""
    header_bytes_max: int = 4 * 1024**2
    """Long names and pax records of one entry: attributes of a file are at most 64 KiB each."""
    attribute_bytes_max: int = GIBIBYTE
    """Of all extended attributes together, as much as they take in memory: there they are held until the end."""

    def __post_init__(self) -> None:
        if not 1 <= self.depth_max <= DEPTH_LIMIT:
            raise TreeError(f"the depth an import may have is 1 to {DEPTH_LIMIT}, got {self.depth_max}")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How an import is made."""

    limits: Limits = field(default_factory=Limits)
    devices: Devices = Devices.STANDARD
    repeated: Repeated = Repeated.REFUSE
    keep_times: bool = False
    platform: str = ""
    """`os/architecture[/variant]` of an OCI image with several; empty: this machine's."""
    partition: int = 0
    """Of a disk image; 0: the one that holds a root."""
    one_file_system: bool = False
    """Of a directory: mounts inside are empty directories instead of an error."""


class Budget:
    """What is left of the limits; one for all parts of an import."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._entries = 0
        self._bytes = 0
        self._attribute_bytes = 0

    def take_entry(self) -> None:
        self._entries += 1
        if self._entries > self.limits.entries_max:
            raise LimitError(
                f"an import may have {self.limits.entries_max} entries, got more; --max-entries allows them"
            )

    def take_bytes(self, size: int, name: bytes) -> None:
        self._bytes += size
        if self._bytes > self.limits.bytes_max:
            raise LimitError(
                f"an import's files may have {self.limits.bytes_max} bytes together, got more with {name!r};"
                " --max-bytes allows them"
            )

    def take_attributes(self, xattrs: Xattrs, name: bytes) -> None:
        size = sum(_ATTRIBUTE_BYTES + len(key) + len(value) for key, value in xattrs)
        self.take_bytes(size, name)
        self._attribute_bytes += size
        if self._attribute_bytes > self.limits.attribute_bytes_max:
            raise LimitError(
                f"an import's extended attributes may take {self.limits.attribute_bytes_max} bytes together,"
                f" got more with {name!r}"
            )


def check_device(policy: Devices, kind: int, device: tuple[int, int], name: bytes) -> None:
    """Refuse a device node that the policy does not allow."""
    major, minor = device
    if not (0 <= major <= 0xFFF and 0 <= minor <= 0xFFFFF):
        raise TreeError(f"a device has a major number up to 4095 and a minor up to 1048575, got {device} for {name!r}")
    standard = kind == CHARACTER and device in _STANDARD_DEVICES
    if policy is Devices.REFUSE or (policy is Devices.STANDARD and not standard):
        word = "character" if kind == CHARACTER else "block"
        allowed = "no devices" if policy is Devices.REFUSE else f"only {', '.join(_STANDARD_DEVICES.values())}"
        raise TreeError(
            f"an import may hold {allowed}, got {word} device {major}:{minor} for {name!r}; --devices=keep allows it"
        )
