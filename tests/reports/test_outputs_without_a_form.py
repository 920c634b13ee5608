"""Outputs that paper and a page without scripts cannot show are named, with the same bytes.

Cases without an address are from this project's own reviews.
"""

from typing import Any

import matplotlib
import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.display import HTML, IFrame, YouTubeVideo
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from nbformat.v4 import new_output

from ci.handout.handout import prepare
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures

TABLE = "<style>#T_{0} td {{color: red}}</style><table id='T_{0}'><tr><td>1</td></tr></table>"
MISSING = "This output is not in the handout: "


@pytest.mark.parametrize(
    ("data", "text"),
    [
        # https://github.com/jupyter/nbconvert/issues/944, https://github.com/jupyter/nbconvert/issues/2235
        # plotly, altair: a script that draws in an empty element
        ({"text/html": "<div id='x'></div><script>draw()</script>"}, f"{MISSING}text/html"),
        (
            {"application/vnd.vegalite.v5+json": {}, "text/plain": "<VegaLite 5 object>"},
            "<VegaLite 5 object>",
        ),
        # IPython: Audio, GIF, YouTubeVideo, Javascript
        (
            {
                "text/html": "<audio src='data:audio/wav;base64,AA'></audio>",
                "text/plain": "<IPython.lib.display.Audio object>",
            },
            f"{MISSING}IPython.lib.display.Audio",
        ),
        (
            {"image/gif": "AA", "text/plain": "<IPython.core.display.Image object>"},
            f"{MISSING}IPython.core.display.Image",
        ),
        (
            {
                "text/html": "<iframe src='https://www.youtube.com/embed/x'></iframe>",
                "text/plain": "<IPython.lib.display.YouTubeVideo at 0x7f3a5c0d1e50>",
            },
            f"{MISSING}IPython.lib.display.YouTubeVideo",
        ),
        # matplotlib: to_jshtml
        (
            {
                "text/html": "<script>go()</script><button>Once</button> Loop Reflect",
                "text/plain": "<IPython.core.display.HTML object>",
            },
            f"{MISSING}IPython.core.display.HTML",
        ),
        # scikit-learn: HTML that asks the reader to run the cell again
        (
            {
                "text/html": "<style></style><div>please rerun this cell<input></div>",
                "text/plain": "LogisticRegression()",
            },
            "LogisticRegression()\n(shown as text: its HTML is not in the handout)",
        ),
        # plotly: the whole data of the figure
        (
            {"text/html": "<div></div><script></script>", "text/plain": "Figure({\n" + "1,\n" * 99},
            f"{MISSING}text/html",
        ),
        # tqdm.auto, ipywidgets
        (
            {
                "application/vnd.jupyter.widget-view+json": {"model_id": "0f"},
                "text/plain": "HBox(children=(HTML(value=''),))",
            },
            f"{MISSING}HBox",
        ),
        (
            {"text/plain": "[<matplotlib.lines.Line2D at 0x7f3a5c0d1e50>]"},
            "[<matplotlib.lines.Line2D>]",
        ),
        ({"text/plain": "<AddBackward0 at 0x7f3a5c0d1e50>"}, "<AddBackward0>"),
        ({"text/plain": "<object object at 0x7f3a5c0d1e50>"}, "<object object>"),
        ({"application/json": {"a": 1}}, f"{MISSING}application/json"),
    ],
)
def test_it_is_named_or_shown_as_text(
    make: Make,  # noqa: F811
    data: dict[str, Any],
    text: str,
) -> None:
    """The text names the type, or the format if there is no type; nothing else is left."""
    [output] = prepare(make(new_output("display_data", data)), "en").cells[-1].outputs
    assert output.data == {"text/plain": text}


def test_a_styled_table_is_a_table_with_the_same_bytes(make: Make) -> None:  # noqa: F811
    """pandas gives a Styler another identifier, and its repr another address, in each run."""
    runs = [
        {"text/html": TABLE.format(name), "text/plain": f"<pandas.Styler object at 0x7f{name}>"}
        for name in ("0a1b2c", "ffeedd")
    ]
    first, second = (
        prepare(make(new_output("display_data", data)), "en").cells[-1].outputs for data in runs
    )
    assert first == second
    assert "<td>1</td>" in first[0].data["text/html"]
    assert "text/plain" not in first[0].data


def test_words_in_html_stay(make: Make) -> None:  # noqa: F811
    """Nothing is lost by sanitising them."""
    data = {"text/html": "<b>bold</b>", "text/plain": "<IPython.core.display.HTML object>"}
    [output] = prepare(make(new_output("display_data", data)), "en").cells[-1].outputs
    assert output.data == {"text/html": "<b>bold</b>"}


def test_the_remains_of_real_objects_are_named(make: Make) -> None:  # noqa: F811
    """What IPython and matplotlib display, not what this test believes of it."""
    with matplotlib.rc_context({"animation.embed_limit": 1}):
        figure = Figure(figsize=(1, 1))
        moves = FuncAnimation(figure, lambda number: [], frames=1, cache_frame_data=False)
        objects = [YouTubeVideo("x"), HTML(moves.to_jshtml()), IFrame("https://pytorch.org", 9, 9)]
    formatter = DisplayFormatter()
    for shown in objects:
        data, _ = formatter.format(shown)
        [output] = prepare(make(new_output("display_data", data)), "en").cells[-1].outputs
        name = f"{type(shown).__module__}.{type(shown).__name__}"
        assert output.data == {"text/plain": f"{MISSING}{name}"}
