"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Who asks. Keystone has expanded the roles: an admin is a member and a reader, too."""

    name: str
    roles: frozenset[str] = frozenset()
    project: str | None = None
    system: bool = False
    """The roles are on the whole system rather than on a project."""
    service_project: bool = False
    """The project is the one of OpenStack's own services."""
    unrestricted: bool = False

    @property
    def is_service(self) -> bool:
        """Another service of the same cloud, such as Nova."""
        return "service" in self.roles and (self.system or self.service_project)


ANYBODY = Identity("anybody", unrestricted=True)
