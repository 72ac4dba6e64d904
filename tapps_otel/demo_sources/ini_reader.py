"""Read settings: sections, names, values with types, references to other values."""

import re

SECTION = re.compile(r"\[([^\]]+)\]\s*$")
SETTING = re.compile(r"([\w.-]+)\s*[=:]\s*(.*)$")
REFERENCE = re.compile(r"\$\{([\w.-]+)\}")
TRUE, FALSE = {"yes", "true", "on"}, {"no", "false", "off"}


class SettingError(ValueError):
    """A line that cannot be read, or a reference that leads nowhere."""


def parse(text):
    """Sections with their settings, as they are written."""
    sections, current = {"": {}}, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        if found := SECTION.match(line):
            current = found.group(1).strip()
            sections.setdefault(current, {})
        elif found := SETTING.match(line):
            name, value = found.groups()
            if name in sections[current]:
                raise SettingError(f"line {number}: {name!r} is there already")
            sections[current][name] = value.strip()
        else:
            raise SettingError(f"line {number}: neither a section nor a setting: {line!r}")
    return sections


def resolve(sections):
    """Put values in for references, in any order.

    :raises SettingError: one leads nowhere, or round in a circle
    """
    flat = {
        f"{section}.{name}" if section else name: value
        for section, settings in sections.items()
        for name, value in settings.items()
    }

    def value_of(name, seen=()):
        if name in seen:
            raise SettingError(f"{' -> '.join((*seen, name))} is a circle")
        if name not in flat:
            raise SettingError(f"nobody knows {name!r}")
        return REFERENCE.sub(lambda found: value_of(found.group(1), (*seen, name)), flat[name])

    return {name: convert(value_of(name)) for name in flat}


def convert(text):
    """A truth value, a number, a list or the text itself."""
    if text.lower() in TRUE | FALSE:
        return text.lower() in TRUE
    if "," in text:
        return [convert(part.strip()) for part in text.split(",")]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
