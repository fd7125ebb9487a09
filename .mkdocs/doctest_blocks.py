"""For mkdocstrings: examples in docstrings become code blocks.

Docstrings here have no sections; an example begins with `>>>` and ends with the next empty line, or
with the docstring.
"""

import griffe


class Doctests(griffe.Extension):
    """Puts fences around the examples of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """A docstring with its examples as fenced blocks."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        starts = line.startswith(">>> ")
        if starts and not inside:
            lines += [] if not lines or not lines[-1] else [""]
            lines.append("```pycon")
        elif inside and not line:
            lines.append("```")
        inside = bool(line) and (inside or starts)
        lines.append(line.replace("  # doctest: +SKIP", ""))
    return "\n".join(lines).rstrip()
