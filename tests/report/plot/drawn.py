"""What stands in a picture, to be compared with its table."""

import numpy as np


def boxes(collection) -> np.ndarray:
    """[n, 4] left, right, bottom, top of a collection's rectangles."""
    corners = [path.vertices[:4] for path in collection.get_paths()]
    return np.array([[*c[:, 0][[0, 1]], *c[:, 1][[0, 2]]] for c in corners])


def by_label(ax) -> dict:
    return {c.get_label(): c for c in ax.collections}


def rendered(ax) -> None:
    """Draw it: warnings are errors, so text that does not fit or a missing glyph shows here."""
    ax.figure.canvas.draw()


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]
