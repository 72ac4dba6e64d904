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

from tapps_otel.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment, PackageLoader

__all__ = ["render", "render_index"]

_COMMON: Final = "common.js"  # runs before the data: it shows that these are being loaded
# In a script element, `</script` and `<!--` have a meaning even inside a JSON string.
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(content: dict[str, Any]) -> str:
    """Return the page of a run with this content."""
    title = f"{content['name'] or 'run'}: {content['id']}"
    loading = counted(len(content["steps"]), "step")
    return _page("page", content, title=title, loading=loading, styles=["page.css"])


def render_index(content: dict[str, Any]) -> str:
    """Return the index of several runs with this content."""
    loading, styles = counted(len(content["runs"]), "run"), ["page.css", "index.css"]
    return _page("index", content, title="Runs", loading=loading, styles=styles)


def _page(
    name: str, content: dict[str, Any], *, title: str, loading: str, styles: list[str]
) -> str:
    """Fill a frame.

    :param loading: what is loaded: it is shown until the script has drawn the page
    """
    environment, loader = _frames()
    style_texts, script_texts = (
        [loader.get_source(environment, file)[0] for file in files]
        for files in (styles, [_COMMON, f"{name}.js"])
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
    return environment.get_template(f"{name}.html.jinja").render(
        title=title,
        loading=loading,
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
