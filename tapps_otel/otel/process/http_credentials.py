"""Credentials of HTTP requests: those that were configured for them, and no others.

By itself, `requests` replaces the header ``Authorization`` by what ``~/.netrc`` has for the host.
It is imported where a request is made, because `requests` is heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_auth_from_url

if TYPE_CHECKING:
    from requests import PreparedRequest

__all__ = ["OnlyExplicit"]


class OnlyExplicit(AuthBase):
    """Leaves a header ``Authorization`` as it is; without one, uses the address's credentials."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Complete a request that is about to be sent."""
        user, password = get_auth_from_url(request.url or "")
        if "Authorization" in request.headers or not (user or password):
            return request
        authorized: PreparedRequest = HTTPBasicAuth(user, password)(request)
        return authorized
