"""How docstrings become pages of the documentation: lines ``name: text`` become a list, roles of Sphinx become names."""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^(?P<names>[A-Za-z_*][\w, *]*(?: \([^)]*\))?): +(?P<text>\S.*)$")
ROLE = re.compile(r":\w+:`~?\.*(?:[\w.]*\.)?(\w+)`")


def readable(text: str) -> str:
    """A docstring as Markdown."""
    lines, blank = [], True
    for line in ROLE.sub(r"`\1`", text).splitlines():
        entry = ENTRY.match(line)
        if entry and lines:
            listed = lines[-1].startswith(("- ", "  ")) if lines else False
            lines += [] if blank or listed else [""]
            lines.append(f"- **{entry['names']}**: {entry['text']}")
        elif line and not blank and lines and lines[-1].startswith(("- ", "  ")) and not line.startswith(" "):
            lines += ["", line]  # the list is over
        else:
            lines.append(line)
        blank = not line.strip()
    return "\n".join(lines).replace("``", "`")


class ReadableDocstrings(griffe.Extension):
    """Applies :func:`readable` to everything that is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by Griffe for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
