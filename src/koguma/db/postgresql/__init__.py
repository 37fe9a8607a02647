"""Django's PostgreSQL backend with connections that are kept for the next request: see `base`."""
