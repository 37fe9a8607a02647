"""The cinder driver: a volume is one of Cinder's, shown to a machine while it has an attachment.

Cinder's names are not unique, and it does not tell whom an attachment is for. So a volume's metadata says:

    koguma_name         which volume it is; the oldest that bears the name counts
    koguma_size_bytes   the size that was asked for; Cinder's own is in GiB
    koguma_made         its own id, once it was whole. A copy (a restored backup) bears another's id and is not ours
    koguma_attachment   the attachment it is shown by
    koguma_initiator    and the machine which that attachment is for

`show` reserves an attachment, notes whose it is, and only then names the machine to Cinder, which lets it in. Cinder
gives one reservation at a time, so it is the lock: an attachment that nobody noted let nobody in.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koguma.contracts.errors import VolumeError, VolumeRefused, VolumeUnreachable
from koguma.contracts.volumes import (
    Initiator,
    Volume,
    VolumeAccess,
    require_free,
    require_initiator,
    require_name,
)
from koguma.drivers.volume.cinder.cloud import LENIENT_MICROVERSION, Cloud, identity, part, pauses
from koguma.drivers.volume.cinder.images import ensure_image
from koguma.drivers.volume.cinder.target import target_of
from koguma.model.volume import Target

NAME, SIZE, MADE = "koguma_name", "koguma_size_bytes", "koguma_made"
ATTACHMENT, INITIATOR = "koguma_attachment", "koguma_initiator"
GIB = 1 << 30
UNDO_S = 20.0
_BEING_MADE = frozenset({"creating", "downloading"})


@dataclass(frozen=True)
class _Found:
    """A volume of Cinder's that bears one of our names."""

    id: str
    status: str
    created_at: str
    name: str
    size_bytes: int
    shared: bool
    """Whether Cinder would let two machines in."""
    made: bool
    attachment: str | None
    initiator: str | None


@dataclass(frozen=True)
class _Attachment:
    id: str
    status: str
    of_server: bool
    """Whether it is Nova's."""


class CinderVolumes:
    """The volumes of one project of a cloud."""

    def __init__(self, access: VolumeAccess) -> None:
        self._cloud = Cloud(access.address)
        self._place = self._cloud.place

    def volumes(self, *, timeout_s: float) -> Mapping[str, Volume]:
        deadline = time.monotonic() + timeout_s
        oldest: dict[str, _Found] = {}
        for found in self._all(None, deadline):
            oldest.setdefault(found.name, found)
        return {name: self._volume(found, deadline) for name, found in oldest.items()}

    def create(self, name: str, source: Path, size_bytes: int, *, timeout_s: float) -> Volume:
        deadline = time.monotonic() + timeout_s
        require_name(name, self._place)
        found = self._oldest(name, deadline) or self._make(name, source, size_bytes, deadline)
        if found.size_bytes != size_bytes:
            rule = f"volume {name!r} must have {size_bytes} bytes"
            raise VolumeRefused(f"{rule}, it has {found.size_bytes} ({self._place})")
        if not found.made:
            self._finish(found, deadline)
        return self._volume(found, deadline)

    def show(self, name: str, initiator: Initiator, *, timeout_s: float) -> Target:
        """1. Refuse while it is another's, or could be two machines' at once.
        2. Remove reservations that nobody noted: they let nobody in.
        3. Reserve an attachment and note that it is this machine's, unless the last call did.
        4. Let the machine in. What Cinder then offers must be usable; if not, hide the volume again.
        """
        deadline = time.monotonic() + timeout_s
        require_name(name, self._place)
        require_initiator(initiator, self._place)
        found = self._oldest(name, deadline)
        if found is None:
            raise VolumeRefused(f"a volume must exist, got {name!r} ({self._place})")
        attachments = self._attachments(found.id, deadline)
        require_free(_seen(found, attachments), name, initiator.name, self._place)
        self._require_showable(found)
        noted, said = self._last_call(found, attachments, deadline)
        for item in attachments:
            if item != noted:
                self._detach(item.id, deadline)
        attachment = noted.id if noted else self._reserve(found, bool(attachments), initiator, deadline)
        try:
            target = target_of(said or self._let_in(attachment, initiator, deadline), self._place)
        except VolumeRefused:
            with contextlib.suppress(VolumeError):
                self._hide(found, time.monotonic() + UNDO_S)
            raise
        if noted is None or noted.status != "attached":
            self._complete(attachment, deadline)
        return target

    def hide(self, name: str, *, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for found in self._all(name, deadline):
            self._hide(found, deadline)

    def delete(self, name: str, *, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        require_name(name, self._place)
        for found in self._all(name, deadline):
            attachments = self._attachments(found.id, deadline)
            require_free(_seen(found, attachments), name, None, self._place)
            for item in attachments:
                self._detach(item.id, deadline)
            self._delete(found, deadline)

    def _make(self, name: str, source: Path, size_bytes: int, deadline: float) -> _Found:
        if not source.is_file() or source.stat().st_size > size_bytes:
            raise VolumeRefused(f"a volume must be made of a file that fits, got {source} ({self._place})")
        image = ensure_image(self._cloud, source, deadline)
        volume = {
            "name": name,
            "size": -(-size_bytes // GIB),
            "imageRef": image,
            "metadata": {NAME: name, SIZE: str(size_bytes)},
        }
        answer = self._cloud.ask(
            "block_storage", "POST", "/volumes", deadline, body={"volume": volume}, expected=(202,)
        )
        mine = self._found(part(answer.body, "volume", dict, self._place))
        # A request of ours that nobody waited for any longer may have made one meanwhile: the oldest counts.
        oldest = self._oldest(name, deadline) or mine
        if oldest.id != mine.id:
            with contextlib.suppress(VolumeError):
                self._delete(mine, deadline)
        return oldest

    def _finish(self, found: _Found, deadline: float) -> None:
        """Wait until it is whole and note that it was. One that cannot be made is removed, for the next call to make
        another: nobody has ever written to it.
        """
        status = found.status
        for _ in pauses(deadline):
            status = self._status(found.id, deadline) or "gone"
            if status not in _BEING_MADE:
                break
        if status == "error":
            reason = self._reason(found.id, deadline)
            self._delete(found, deadline)
            raise VolumeUnreachable(f"Cinder must be able to make volume {found.name!r}: {reason} ({self._place})")
        if status in _BEING_MADE or status in {"gone", "deleting", "error_deleting"}:
            raise VolumeUnreachable(f"volume {found.name!r} must become available, it is {status!r} ({self._place})")
        self._note(found.id, {MADE: found.id}, deadline)

    def _require_showable(self, found: _Found) -> None:
        if found.shared:
            rule = "its type may not be multiattach: two machines on one file system destroy it"
            raise VolumeRefused(f"volume {found.name!r} cannot be shown: {rule} ({self._place})")
        if not found.made:
            raise VolumeUnreachable(
                f"volume {found.name!r} must be whole to be shown, it is {found.status!r} ({self._place})"
            )

    def _reserve(self, found: _Found, held: bool, initiator: Initiator, deadline: float) -> str:
        """An attachment that is noted to be this machine's. `held`: what held it until now was just removed."""
        if not held and found.status != "available":
            rule = f"volume {found.name!r} must be available to be shown"
            raise VolumeUnreachable(f"{rule}, it is {found.status!r} ({self._place})")
        # Cinder answers 400 while the volume is in another state, as it is while another worker reserves it.
        answer = self._cloud.ask(
            "block_storage", "POST", "/attachments", deadline,
            body={"attachment": {"volume_uuid": found.id}}, busy=(400,),
        )  # fmt: skip
        attachment = identity(part(answer.body, "attachment", dict, self._place), self._place)
        self._note(found.id, {ATTACHMENT: attachment, INITIATOR: initiator.name}, deadline)
        return attachment

    def _let_in(self, attachment: str, initiator: Initiator, deadline: float) -> Mapping[str, Any]:
        """What Cinder says of how to log in."""
        connector = {
            "initiator": initiator.name,
            "host": initiator.user,
            "multipath": False,
            "platform": "x86_64",
            "os_type": "linux",
        }
        body = {"attachment": {"connector": connector}}
        path = f"/attachments/{attachment}"
        answer = self._cloud.ask("block_storage", "PUT", path, deadline, body=body, busy=(404, 409))
        said = part(answer.body, "attachment", dict, self._place)
        connection: Mapping[str, Any] = part(said, "connection_info", dict, self._place)
        return connection

    def _complete(self, attachment: str, deadline: float) -> None:
        """From here on Cinder calls the volume `in-use`."""
        path, body = f"/attachments/{attachment}/action", {"os-complete": None}
        self._cloud.ask("block_storage", "POST", path, deadline, body=body, expected=(204,), busy=(404,))

    def _last_call(
        self, found: _Found, attachments: list[_Attachment], deadline: float
    ) -> tuple[_Attachment | None, Mapping[str, Any] | None]:
        """The attachment that the last call noted, and what Cinder told it of how to log in, if it came to that. None
        too for one with which Cinder failed half-way: it is to begin again.
        """
        noted = next((item for item in attachments if item.id == found.attachment), None)
        if noted is None or noted.status == "reserved":
            return noted, None
        answer = self._cloud.ask("block_storage", "GET", f"/attachments/{noted.id}", deadline, busy=(404,))
        said = part(answer.body, "attachment", dict, self._place).get("connection_info")
        if noted.status in {"attaching", "attached"} and isinstance(said, dict) and said:
            return noted, said
        return None, None

    def _hide(self, found: _Found, deadline: float) -> None:
        for item in self._attachments(found.id, deadline):
            self._detach(item.id, deadline)
        if left := self._attachments(found.id, deadline):
            raise VolumeUnreachable(
                f"volume {found.name!r} must be hidden, attachment {left[0].id} is still there ({self._place})"
            )
        for key in (ATTACHMENT, INITIATOR) if found.attachment or found.initiator else ():
            path = f"/volumes/{found.id}/metadata/{key}"
            self._cloud.ask("block_storage", "DELETE", path, deadline, expected=(200, 404))

    def _detach(self, attachment: str, deadline: float) -> None:
        path = f"/attachments/{attachment}"
        self._cloud.ask("block_storage", "DELETE", path, deadline, expected=(200, 404))

    def _delete(self, found: _Found, deadline: float) -> None:
        """Until it is gone: Cinder says so before it is. It deletes none that it is making."""
        status, asked = None, False
        for _ in pauses(deadline):
            status = self._status(found.id, deadline)
            if status is None:
                return
            if status == "error_deleting" and asked:
                break
            if not asked and status not in _BEING_MADE | {"deleting"}:
                self._cloud.ask("block_storage", "DELETE", f"/volumes/{found.id}", deadline, expected=(202, 404))
                asked = True
        raise VolumeUnreachable(f"volume {found.name!r} must be deleted, it is {status!r} ({self._place})")

    def _note(self, volume: str, values: Mapping[str, str], deadline: float) -> None:
        path = f"/volumes/{volume}/metadata"
        self._cloud.ask("block_storage", "POST", path, deadline, body={"metadata": dict(values)}, busy=(404,))

    def _status(self, volume: str, deadline: float) -> str | None:
        """None when it is gone."""
        answer = self._cloud.ask("block_storage", "GET", f"/volumes/{volume}", deadline, expected=(200, 404))
        if answer.status == 404:
            return None
        status: str = part(part(answer.body, "volume", dict, self._place), "status", str, self._place)
        return status

    def _reason(self, volume: str, deadline: float) -> str:
        """What Cinder tells users of the last failure with this volume."""
        with contextlib.suppress(VolumeError):
            query = {"resource_uuid": volume}
            answer = self._cloud.ask(
                "block_storage", "GET", "/messages", deadline, query=query, microversion=LENIENT_MICROVERSION
            )
            for message in part(answer.body, "messages", list, self._place):
                if isinstance(message, dict) and message.get("resource_uuid") == volume:
                    text = str(message.get("user_message", ""))[:200]
                    return "".join(char for char in text if char.isprintable())
        return "it gives no reason"

    def _oldest(self, name: str, deadline: float) -> _Found | None:
        return next(iter(self._all(name, deadline)), None)

    def _all(self, name: str | None, deadline: float) -> list[_Found]:
        """Those of this name, or of any; the oldest first. Cinder may leave the filter out of account."""
        query = {"limit": "1000"} | ({"metadata": str({NAME: name})} if name is not None else {})
        found: dict[str, _Found] = {}
        while True:
            answer = self._cloud.ask(
                "block_storage", "GET", "/volumes/detail", deadline, query=query, microversion=LENIENT_MICROVERSION
            )
            page = part(answer.body, "volumes", list, self._place)
            ids = [identity(item, self._place) for item in page]
            for item in page:
                metadata = part(item, "metadata", dict, self._place)
                if NAME in metadata and name in {None, metadata[NAME]} and metadata.get(MADE) in {None, item["id"]}:
                    found[item["id"]] = self._found(item)
            if not answer.body.get("volumes_links") or not ids or ids[-1] == query.get("marker"):
                return sorted(found.values(), key=lambda item: (item.created_at, item.id))
            query["marker"] = ids[-1]

    def _found(self, item: dict[str, Any]) -> _Found:
        metadata = part(item, "metadata", dict, self._place)
        asked = str(metadata.get(SIZE, ""))
        size_bytes = int(asked) if asked.isdecimal() else part(item, "size", int, self._place) * GIB
        return _Found(
            id=identity(item, self._place),
            status=part(item, "status", str, self._place)[:40],
            created_at=part(item, "created_at", str, self._place),
            name=part(metadata, NAME, str, self._place),
            size_bytes=size_bytes,
            shared=item.get("multiattach") is True,
            made=metadata.get(MADE) == item["id"],
            attachment=metadata.get(ATTACHMENT),
            initiator=metadata.get(INITIATOR),
        )

    def _attachments(self, volume: str, deadline: float) -> list[_Attachment]:
        query = {"volume_id": volume}
        answer = self._cloud.ask(
            "block_storage", "GET", "/attachments", deadline, query=query, microversion=LENIENT_MICROVERSION
        )
        return [
            _Attachment(
                identity(item, self._place), part(item, "status", str, self._place), item.get("instance") is not None
            )
            for item in part(answer.body, "attachments", list, self._place)
            if part(item, "volume_id", str, self._place) == volume
        ]

    def _volume(self, found: _Found, deadline: float) -> Volume:
        free = found.status == "available" or found.status in _BEING_MADE
        return _seen(found, [] if free else self._attachments(found.id, deadline))


def _seen(found: _Found, attachments: list[_Attachment]) -> Volume:
    """Who it is shown to: whose attachment was noted, else whoever made one that may have let a machine in."""
    others = [item for item in attachments if item.id != found.attachment]
    strange = next((item for item in others if item.of_server or item.status != "reserved"), None)
    initiator = None
    if strange:
        initiator = f"somebody else, by attachment {strange.id}"
    elif len(others) < len(attachments):
        initiator = found.initiator or "a machine that nobody noted"
    return Volume(found.name, found.size_bytes, initiator)
