"""One conversation with a Redfish service, under one deadline.

Owns the errors of ours that say whether another try is worth it; `adapter.py` owns how requests travel. Knows nothing
of power or settings.

Basic authentication is used for every request: it leaves no session on the BMC, and many allow only a handful.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
import sushy
from sushy import auth, connector, exceptions

from koguma.contracts.errors import PowerError, PowerRefused, PowerUnreachable, Unsupported
from koguma.contracts.power import Access
from koguma.drivers.power.redfish.adapter import Adapter
from koguma.drivers.power.redfish.address import Place, place_of

_BUSY = frozenset({408, 409, 412, 423, 425, 429})
"""Statuses by which a BMC says that it is occupied or that somebody else was faster."""
_OPTIONAL = re.compile(r"attribute (Bios|SecureBoot|VirtualMedia|UpdateService|FirmwareInventory)\b")
"""What a Redfish service may lack; sushy names the link that is missing."""
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Fingerprints did not match", "doesn't match", "hostname mismatch")


class Conversation:
    """Opened for one call of a driver. `left_s` is what remains of its time."""

    def __init__(self, access: Access, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._timeout_s = timeout_s
        self._place: Place = place_of(access)
        self.where = f"BMC {urlsplit(self._place.url).netloc}"

    @property
    def left_s(self) -> float:
        return self._deadline - self._clock()

    def root(self) -> sushy.Sushy:
        """The service root. Every failure of sushy inside `translated` becomes an error of ours."""
        link = connector.Connector(
            self._place.url, verify=self._place.verify, server_side_retries=1, server_side_retries_delay=0
        )
        adapter = Adapter(self._place, lambda: self.left_s)
        link._session.trust_env = False
        for scheme in ("http://", "https://"):
            link._session.mount(scheme, adapter)
        credentials = auth.BasicAuth(self._access.username, self._access.password)
        return sushy.Sushy(self._place.url, auth=credentials, connector=link)

    def system(self) -> Any:
        """The system of the address, or the only one that there is."""
        root = self.root()
        path = self._place.system
        if path is None:
            paths = root.get_system_collection().members_identities
            if len(paths) != 1:
                raise PowerRefused(
                    f"a BMC of {len(paths)} systems needs one in its address, as …/redfish/v1/Systems/ID ({self.where})"
                )
            (path,) = paths
        return root.get_system(path)

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """`doing` completes the sentence "the BMC did not …"."""
        try:
            yield
        except PowerError:
            raise
        except exceptions.HTTPError as error:
            raise self._of_status(doing, error) from None
        except exceptions.ConnectionError as error:
            raise self._of_connection(doing, error) from None
        except (exceptions.MissingActionError, exceptions.InvalidParameterValueError) as error:
            raise Unsupported(f"the BMC cannot {doing}: {printable(error)} ({self.where})") from None
        except exceptions.MissingAttributeError as error:
            if _OPTIONAL.search(str(error)):
                raise Unsupported(f"the BMC cannot {doing}: {printable(error)} ({self.where})") from None
            raise PowerUnreachable(
                f"the BMC must answer with all a Redfish service has, to {doing}: {printable(error)} ({self.where})"
            ) from None
        except (
            exceptions.SushyError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            IndexError,
            RecursionError,
        ) as error:
            # Whatever a broken answer makes of sushy: the BMC may answer better the next time.
            raise PowerUnreachable(
                f"the BMC must answer with Redfish's JSON, to {doing}: {printable(error)} ({self.where})"
            ) from None

    def _of_status(self, doing: str, error: exceptions.HTTPError) -> PowerError:
        words = f"the BMC did not {doing}: HTTP {error.status_code}, {printable(error.detail)} ({self.where})"
        if isinstance(error, exceptions.AccessError):
            return PowerRefused(f"the BMC refused user {self._access.username!r}: {words}")
        if error.status_code in {405, 501}:
            return Unsupported(words)
        if error.status_code >= 500 or error.status_code in _BUSY:
            return PowerUnreachable(words)
        return PowerRefused(words)

    def _of_connection(self, doing: str, error: exceptions.ConnectionError) -> PowerError:
        cause = error.__context__
        if isinstance(cause, requests.exceptions.SSLError) and any(word in str(cause) for word in _UNTRUSTED):
            return PowerRefused(
                f"the BMC's certificate must be the one on record, it is not trusted ({self.where});"
                f" add ?tls=sha256:FINGERPRINT or ?tls=ca:FILE to its address: {printable(cause)}"
            )
        if isinstance(cause, requests.exceptions.Timeout):
            return PowerUnreachable(f"the BMC must answer within {self._timeout_s:g} s, to {doing} ({self.where})")
        return PowerUnreachable(f"the BMC did not {doing}: {printable(cause or error)} ({self.where})")


def printable(value: object) -> str:
    """What a BMC said, safe and short enough for a message."""
    return "".join(char if char.isprintable() else " " for char in str(value)).strip()[:200]
