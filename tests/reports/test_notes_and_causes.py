"""The notes and the cause of an error are part of what it says (PEP 678, PEP 3134)."""

from nbformat.v4 import new_output

from ci.handout.exporters import HandoutHTMLExporter
from ci.handout.handout import prepare
from tests.handout.conftest import Make, lesson, make  # noqa: F401  # fixtures

# https://github.com/ipython/ipykernel/issues/1115
TRACEBACK = """\
---------------------------------------------------------------------------
KeyError                                  Traceback (most recent call last)
Cell In[1], line 3
----> 3 {}["a"]

File ~/lib/python3.11/deep.py:12, in get(x)
---> 12     raise

KeyError: 'a'

The above exception was the direct cause of the following exception:

ValueError                                Traceback (most recent call last)
Cell In[1], line 6
----> 6 f()

ValueError: no key
a note in /home/me/secret/file.py
of two lines"""

SHORT = """\
Cell In[1], line 3
----> 3 {}["a"]

…

KeyError: 'a'

The above exception was the direct cause of the following exception:

Cell In[1], line 6
----> 6 f()

ValueError: no key
a note in …/file.py
of two lines"""


def test_an_error_keeps_its_notes_and_its_cause(make: Make) -> None:  # noqa: F811
    """In the notebook of the handout, from which all formats are made."""
    error = new_output(
        "error", ename="ValueError", evalue="no key", traceback=TRACEBACK.split("\n")
    )
    notebook = prepare(make(error), "en")
    assert "\n".join(notebook.cells[-1].outputs[0].traceback) == SHORT
    page = str(HandoutHTMLExporter().from_notebook_node(notebook)[0])
    assert "of two lines" in page
    assert "KeyError: &#39;a&#39;" in page


def test_an_error_during_handling_is_not_told(make: Make) -> None:  # noqa: F811
    """Libraries try and fail inside; only `raise … from` names a cause."""
    text = TRACEBACK.replace(
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    )
    error = new_output("error", ename="ValueError", evalue="no key", traceback=text.split("\n"))
    lines = prepare(make(error), "en").cells[-1].outputs[0].traceback
    assert "\n".join(lines) == SHORT.rpartition("exception:\n\n")[2]
