"""The Django app `koguma`."""

from __future__ import annotations

from django.apps import AppConfig


class KogumaDb(AppConfig):
    name = "koguma.db"
    label = "koguma"
    default = True
    default_auto_field = "django.db.models.BigAutoField"
