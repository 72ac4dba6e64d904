"""The pages: their frames, styles and scripts are ours, and their content is data.

The content is a JSON text in a ``script`` element of a type that no browser runs. The scripts set
it as text, never as markup. A page's policy names the digests of its styles and scripts: nothing
else runs, and nothing is loaded.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment, PackageLoader

__all__ = ["render", "render_index"]

# In a script element, `</script` and `<!--` have a meaning even inside a JSON string.
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(content: dict[str, Any]) -> str:
    """Return the page of a run with this content."""
    title = f"{content['name'] or 'run'}: {content['id']}"
    return _page("page.html.jinja", title, ["page.css"], ["common.js", "page.js"], content)


def render_index(content: dict[str, Any]) -> str:
    """Return the index of several runs with this content."""
    styles, scripts = ["page.css", "index.css"], ["common.js", "index.js"]
    return _page("index.html.jinja", "Runs", styles, scripts, content)


def _page(
    template: str, title: str, styles: list[str], scripts: list[str], content: dict[str, Any]
) -> str:
    environment, loader = _frames()
    style_texts, script_texts = (
        [loader.get_source(environment, name)[0] for name in names] for names in (styles, scripts)
    )
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    policy = [
        "default-src 'none'",
        f"script-src {_digests(script_texts)}",
        f"style-src {_digests(style_texts)}",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    return environment.get_template(template).render(
        title=title,
        content=content,
        policy="; ".join(policy),
        styles=style_texts,
        scripts=script_texts,
        data=data.translate(_ESCAPES),
    )


@cache
def _frames() -> tuple[Environment, PackageLoader]:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("tapps_otel.report", "page")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined), loader


def _digests(texts: Iterable[str]) -> str:
    return " ".join(
        f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts
    )
