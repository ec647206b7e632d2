"""How objects show themselves: a title and a few rows, as text for terminals and as a table for Jupyter."""

from __future__ import annotations

import html
from collections.abc import Mapping

from perfmodel.errors import one_line


def as_text(title: str, rows: Mapping[str, str]) -> str:
    """A title and aligned rows.

    >>> print(as_text("Machine", {"peak": "1 PFLOP/s", "memory": "80 GB"}))
    Machine
      peak    1 PFLOP/s
      memory  80 GB
    """
    width = max(map(len, rows), default=0)
    lines = [f"  {name:<{width}}  {one_line(value)}" for name, value in rows.items()]
    return "\n".join([one_line(title), *lines])


def as_html(title: str, rows: Mapping[str, str]) -> str:
    """The same as a table of HTML; names of traces and files are escaped.

    >>> as_html("a < b", {"x": "1"})
    '<table><caption>a &lt; b</caption><tr><th>x</th><td>1</td></tr></table>'
    """
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(one_line(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption>{html.escape(one_line(title))}</caption>{cells}</table>"


def seconds(value: float) -> str:
    """A time for people.

    >>> seconds(0.0063264), seconds(12.5), seconds(3e-7)
    ('6.326 ms', '12.5 s', '0.3 us')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value / 1e-6:.4g} us"
