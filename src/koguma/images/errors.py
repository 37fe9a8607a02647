"""What the image repository refuses or could not do; every message says rule, value and place."""

from __future__ import annotations

from koguma.errors import KogumaError


class ImageError(KogumaError):
    """The root of this package's errors."""


class RepositoryError(ImageError):
    """The directory is not a usable repository, or already is one."""


class CorruptError(ImageError):
    """Stored bytes are not what their digest, checksum or format says."""


class StorageError(ImageError):
    """The operating system refused to read or write: a full disk, missing rights, a failing device."""


class ObjectMissingError(ImageError):
    """An object that something refers to is in no pack."""


class RevisionError(ImageError):
    """A name, an abbreviation or an expression like `branch~2` leads to no commit."""


class CommitError(ImageError):
    """A commit cannot be made of what was said: its author, message or time."""


class RefError(ImageError):
    """A ref's name is refused, or the ref is there (or not) against expectation."""


class RefMovedError(RefError):
    """The ref changed since it was read; reading it again and repeating the change may succeed."""

    retry = True


class TreeError(ImageError):
    """A file system tree holds something that cannot be stored or written."""


class LimitError(TreeError):
    """An import is larger, deeper or better compressed than its limits allow."""


class ManifestError(ImageError):
    """A manifest or its signature is not valid."""


class PolicyError(ImageError):
    """policy.toml holds something it may not."""


class SignatureError(ImageError):
    """A commit is not signed by a key that is trusted here."""


class KeyringError(ImageError):
    """A key cannot be added, rotated or revoked."""


class PackageDatabaseError(ImageError):
    """What a tree's package manager or its lists of accounts say cannot be read, or is too large to be honest."""


class RecipeError(ImageError):
    """A recipe is not valid."""


class NotBootableError(ImageError):
    """A commit lacks something a machine needs to boot it; it gets no label."""


class EditError(ImageError):
    """An edit session cannot be opened or committed."""


class MergeError(ImageError):
    """Two histories cannot be joined as asked."""


class ViewError(ImageError):
    """A commit cannot be mounted here, or is not."""


class ToolError(ImageError):
    """An external tool is missing or failed; the message carries its last words."""
