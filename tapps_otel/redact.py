"""Redaction: secrets are replaced before anything is logged or sent.

What is redacted is decided by the name of a value (``password``, ``api_key``) and by the form of a
text (``Bearer ...``, a private key, ``password=...``). What has to be read back as it was, results
and the inputs of workflows, is not redacted: at most it is not stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel import settings
from tapps_otel.masking import MASK
from tapps_otel.settings_types import Redaction

if TYPE_CHECKING:
    from tapps_otel.settings_model import Settings

__all__ = ["NO_RULES", "REDACTED", "Rules", "combined", "rules_here", "rules_of"]

REDACTED: Final = "redacted: it holds a secret"  # the reason why something is not stored

_Replace = Callable[[str], str]


class _Step(NamedTuple):
    """What replaces secrets of one kind, and which texts cannot have any.

    To look for plain words is many times as fast as to match, and most texts have none of them.

    :ivar words: of which the text must contain one, casefolded; without words it may have any
    :ivar least: characters that it must have
    :ivar assigned: it must contain ``=`` or ``:``
    """

    replace: _Replace
    words: tuple[str, ...] = ()
    least: int = 0
    assigned: bool = False


# Names as words in lower case, joined by underscores.
_HIDDEN_NAME: Final = (
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secrets?|credentials?|authorization|cookies?)(?:_|$)"
    r"|(?:^|_)(?:token|jwt|apikey|(?:api|access|private|secret|signing|encryption|account)_key)$"
)
# The names before values in texts.
_LABELS: Final = (
    r"password|passwd|pwd|passphrase|client[_-]?secret|secret|credentials?"
    r"|(?:api|private|secret|access|account)[_-]?key"
    r"|(?:access|auth|refresh|id|session|bearer|api|csrf)[_-]?token"
)
_HEADER: Final = re.compile(
    r"""(?i)(\b(?:proxy-)?authorization\\*["']?\s{0,8}[=:]\s{0,8}\\*["']?|\bcookie\s{0,8}:\s{0,8})"""
    r"""[^\r\n"']+"""
)
_USER_INFO: Final = re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)")
# Texts that are secrets by their form.
_FORMS: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b[Bb]earer\s{1,8}[A-Za-z0-9._~+/=-]{16,}"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON Web Tokens
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # of AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"  # of model services, Stripe
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{30,}"  # of Slack, Google
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}"
)
_TOKEN: Final = re.compile(r"(?i)(\btoken=)[^\s\"',;&)}\]]+")
_CASE_CHANGE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHORT: Final = 64  # characters; of longer texts none are kept as clean
_MOST_CLEAN: Final = 256
_LONG_NAME: Final = 256  # characters; the answers for longer names are not kept
_NO_WORD: Final = re.compile(r"[\W_]+")
_NO_SECRETS: Final[tuple[Any, ...]] = (MASK, "", [], (), {})  # whatever the name


class Rules:
    """Compiled rules: what they do not alter is returned as the same object.

    :ivar on: whether there are any
    :ivar parts: what they were compiled from
    """

    __slots__ = ("_clean", "_clean_items", "_hooks", "_secret_names", "_steps", "on", "parts")

    def __init__(self, parts: tuple[Redaction, ...]) -> None:
        self.parts = parts
        usual = any(part.usual for part in parts)
        names = [_words_of(name) for part in parts for name in part.keys]
        self._secret_names = re.compile(
            "|".join(
                [_HIDDEN_NAME] * usual + [rf"(?:^|_){re.escape(name)}$" for name in names if name]
            )
            or r"(?!)"
        )
        self._steps: list[_Step] = _USUAL_STEPS[:] if usual else []
        if any(names):
            labels = "|".join(name.replace("_", r"[\W_]?") for name in names if name)
            self._steps.append(_Step(_masking_after(labels), assigned=True))
        for part in parts:
            self._steps += [_Step(_masking(re.compile(pattern))) for pattern in part.patterns]
        self._hooks = [part.hook for part in parts if part.hook is not None]
        self.on = bool(usual or names or self._steps or self._hooks)
        self._clean = set[str]()  # short texts that no step alters: names, methods, hosts
        self._clean_items = set[tuple[str, str]]()  # of these, names with their values

    def hides(self, name: str) -> bool:
        """Whether what has this name is a secret."""
        look_up = _is_secret_name if len(name) < _LONG_NAME else _is_secret_name.__wrapped__
        return self.on and look_up(self._secret_names, name)

    def text(self, text: str, name: str = "") -> str:
        """Redact a text.

        :param name: of what it is the value
        """
        if not self.on or text in self._clean:
            return text
        redacted = self._replaced(text)
        for hook in self._hooks:
            redacted = _by_hook(hook, name, redacted)
        if redacted != text:
            return redacted
        if len(text) <= _SHORT and not self._hooks:
            _keep(self._clean, text)
        return text

    def _replaced(self, text: str) -> str:
        redacted, length, folded = text, len(text), ""
        assigned = "=" in text or ":" in text
        for step in self._steps:
            if length < step.least or (step.assigned and not assigned):
                continue
            if step.words:
                folded = folded or _folded(text)
                for word in step.words:
                    if word in folded:
                        break
                else:
                    continue
            redacted = step.replace(redacted)
        return redacted

    def value(self, value: Any, name: str = "") -> Any:
        """Redact a JSON-native value; of one that is nested too deep, only the outline is kept."""
        if not self.on:
            return value
        try:
            return self._value(value, name)
        except RecursionError:  # the event must still be one
            return self._outline(value)

    def _outline(self, value: Any) -> Any:
        """A value without texts and inner values; its parts keep their kinds."""
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): MASK if self.hides(str(key)) else _blank(one)
                for key, one in value.items()
            }
        return [_blank(one) for one in value] if isinstance(value, list | tuple) else _blank(value)

    def attributes(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Redact attributes."""
        found: dict[str, Any] = self.value(attributes)
        return found

    def json(self, data: bytes) -> bytes:
        """Redact JSON; what cannot be read is replaced."""
        if not self.on:
            return data
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return json.dumps(MASK).encode()
        redacted = self.value(value)
        return data if redacted is value else _dumped(redacted)

    def alters(self, value: Any, name: str = "") -> bool:
        """Whether redaction would alter a JSON-native value."""
        return self.value(value, name) is not value

    def alters_json(self, data: bytes) -> bool:
        """Whether redaction would alter JSON."""
        return self.json(data) is not data

    def _value(self, value: Any, name: str) -> Any:  # noqa: PLR0911 - one for each kind of value
        if value is None or isinstance(value, bool):
            return value
        if name and self.hides(name):
            return value if value in _NO_SECRETS else MASK
        if isinstance(value, str):
            return self.text(value, name)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            made = [self._value(one, name) for one in value]
            same = all(one is before for one, before in zip(made, value, strict=True))
            return value if same else made
        if isinstance(value, bytes):
            return MASK if self.alters(value.decode("latin-1"), name) else value
        return value

    def _mapping(self, value: Mapping[str, Any]) -> Any:
        made: dict[str, Any] = {}
        same, clean = True, self._clean
        for key, one in value.items():
            is_short = type(one) is str and len(one) <= _SHORT
            if is_short and (key, one) in self._clean_items:  # as most attributes are
                made[key] = one
                continue
            name = self.text(str(key))
            inner = self._value(one, str(key))
            if name is not key or inner is not one:
                same = False
            elif is_short and key in clean and one in clean:
                _keep(self._clean_items, (key, one))
            made[name] = inner
        return value if same else made


def _keep(known: set[Any], one: object) -> None:
    """Remember one; forget the others if there are many."""
    if len(known) >= _MOST_CLEAN:
        known.clear()
    known.add(one)


@lru_cache(maxsize=256)
def rules_of(given: bool | Redaction) -> Rules:  # noqa: FBT001 - the setting's own type
    """The rules that a setting stands for."""
    return _compiled((_as_redaction(given),))


def rules_here(config: Settings | None = None) -> Rules:
    """The rules of the settings in force."""
    return rules_of((config or settings.current()).redact)


def combined(rules: Rules, own: bool | Redaction | None) -> Rules:  # noqa: FBT001 - as the option
    """The rules of a step: those of its run and its own; ``False`` for none."""
    if own is None:
        return rules
    return NO_RULES if own is False else _compiled((*rules.parts, _as_redaction(own)))


@lru_cache(maxsize=256)
def _compiled(parts: tuple[Redaction, ...]) -> Rules:
    return Rules(parts)


def _as_redaction(given: bool | Redaction) -> Redaction:  # noqa: FBT001 - the setting's own type
    return given if isinstance(given, Redaction) else Redaction(usual=given)


def _folded(text: str) -> str:
    """A text with the letters that ``re.IGNORECASE`` takes for equal made equal."""
    folded = text.casefold().replace("\N{LATIN SMALL LETTER DOTLESS I}", "i")
    return folded.replace("i\N{COMBINING DOT ABOVE}", "i")  # of a capital I with a dot


def _masking(pattern: re.Pattern[str]) -> _Replace:
    return lambda text: pattern.sub(MASK, text)


def _masking_after(labels: str) -> _Replace:
    """Replace what follows a name in a text: in JSON, a query, a header, source code."""
    pair = re.compile(
        rf"""(?i)((?:{labels})\\*["']?\s{{0,8}}[=:]\s{{0,8}})"""
        r"""(?:\\*"[^"]*"|\\*'[^']*'|[^\s"',;&)}\]]+)"""
    )
    return lambda text: pair.sub(_after_name, text)


def _after_name(match: re.Match[str]) -> str:
    return match[1] + MASK


_LABEL_WORDS: Final = (
    "passw", "pwd", "passphrase", "secret", "credential", "token", "_key", "-key",
    "apikey", "privatekey", "accesskey", "accountkey",
)  # fmt: skip
_FORM_WORDS: Final = (
    "private key", "bearer", "eyj", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "github_pat_", "glpat-", "sk-", "k_live_", "k_test_", "xox", "aiza", "npm_", "pypi-",
)  # fmt: skip
_USUAL_STEPS: Final = [
    _Step(
        lambda text: _HEADER.sub(_after_name, text), ("authorization", "cookie"), 8, assigned=True
    ),
    _Step(_masking_after(_LABELS), _LABEL_WORDS, 5, assigned=True),
    _Step(lambda text: _TOKEN.sub(_after_name, text), ("token=",), 7, assigned=True),
    _Step(lambda text: _USER_INFO.sub(MASK, text), ("://",), 6, assigned=True),
    _Step(lambda text: _FORMS.sub(MASK, text), _FORM_WORDS, 15),
]


def _by_hook(hook: Callable[[str, str], str], name: str, text: str) -> str:
    """What a user's function makes of a text; nothing of it is kept if the function fails."""
    try:
        made = hook(name, text)
    except Exception:  # noqa: BLE001 - of the user's; its error could quote the text
        return MASK
    return made if type(made) is str else MASK


@lru_cache(maxsize=4096)
def _is_secret_name(names: re.Pattern[str], name: str) -> bool:
    return names.search(_words_of(name)) is not None


def _words_of(name: str) -> str:
    """A name as words in lower case: ``apiKey``, ``api-key`` and ``API key`` are ``api_key``."""
    return _NO_WORD.sub("_", _CASE_CHANGE.sub("_", name).lower()).strip("_")


def _blank(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return MASK
    if isinstance(value, Mapping | list | tuple):
        return {} if isinstance(value, Mapping) else []
    return value


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


NO_RULES: Final = Rules((Redaction(usual=False),))
