"""The page: its frame, its style and its script are ours, and its content is data.

The content is a JSON text in a ``script`` element of a type that no browser runs. The script sets
it as text, never as markup. The page's policy names the digests of this style and this script:
nothing else runs, and nothing is loaded.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from typing import Any, Final

__all__ = ["render"]

# In a script element, `</script` and `<!--` have a meaning even inside a JSON string.
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(content: dict[str, Any]) -> str:
    """Return the page with this content."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("tapps_otel.report", "page")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return environment.get_template("page.html.jinja").render(
        title=f"{content['name'] or 'run'}: {content['id']}",
        policy="; ".join(
            [
                "default-src 'none'",
                f"script-src '{_digest(script)}'",
                f"style-src '{_digest(style)}'",
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            ]
        ),
        style=style,
        script=script,
        data=data.translate(_ESCAPES),
    )


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
