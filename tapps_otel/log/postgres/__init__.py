"""Runs in PostgreSQL: the lines of their logs, verbatim, and the lease that fences them."""

from tapps_otel.log.postgres.home import PostgresHome

__all__ = ["PostgresHome"]
