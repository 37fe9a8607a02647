"""All paths of the server."""

from __future__ import annotations

from django.urls import path

from koguma.api import boot
from koguma.api.native import api

urlpatterns = [
    path("api/v1/", api.urls),
    path("boot/v1/registrations", boot.post_registration),
    path("boot/v1/reports", boot.post_reports),
    path("boot/v1/snapshot", boot.get_snapshot),
]
