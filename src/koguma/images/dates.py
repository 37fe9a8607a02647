"""Points in time as people say them: `2026-11-01`, `2026-11-01 14:30`, `yesterday`, `3 days ago`, `2.weeks.ago`.

Pure: the present is an argument. Times without a zone are local, as git's are.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from koguma.images.errors import RevisionError

_AGO = re.compile(r"(?P<count>\d+|an?|one)\s+(?P<unit>second|minute|hour|day|week|month|year)s?(?:\s+ago)?")
_LAST = re.compile(r"last\s+(?P<unit>week|month|year)")
_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}
_HINT = "a time is a date such as 2026-11-01 or '2026-11-01 14:30', or 'yesterday', '3 days ago', '@SECONDS'"


def parse_time(text: str, now: float) -> int:
    """Seconds since 1970 of a point in time; a date alone is its beginning. Raises RevisionError."""
    words = " ".join(re.sub(r"[.\s]+", " ", text).split()).lower() if not text[:1].isdigit() or "ago" in text else text
    if words == "now":
        return int(now)
    if words in ("today", "midnight", "yesterday"):
        midnight = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        return int((midnight - timedelta(days=words == "yesterday")).timestamp())
    if re.fullmatch(r"@\d{1,11}", words):
        return int(words[1:])
    if match := _AGO.fullmatch(words):
        count = int(match["count"]) if match["count"].isdigit() else 1
        return max(0, int(now) - count * _SECONDS[match["unit"]])
    if match := _LAST.fullmatch(words):
        return int(now) - _SECONDS[match["unit"]]
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.astimezone()).timestamp())
    except (ValueError, OverflowError):
        raise RevisionError(f"{_HINT}, got {text!r}") from None
