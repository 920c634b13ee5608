"""An open lab: its files, its kernels, and what it refuses."""

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ci.lab import containers
from ci.lab.image import Image
from tests.jupyterlab.conftest import LESSON, Served, a_course, opened_lab


@pytest.fixture(scope="module", params=["host_engine", "bridge_engine"])
def served(
    request: pytest.FixtureRequest, lab_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A lab on each engine; tests leave it unchanged."""
    engine = request.getfixturevalue(request.param)
    opened = opened_lab(engine, a_course(tmp_path_factory.mktemp("course")))
    yield opened
    assert opened.end(signal.SIGINT)[0] == 0


def test_the_lessons_are_there_and_open_as_notebooks(served: Served) -> None:
    """A double click on a script opens jupytext's notebook."""
    status, folder = served.ask("/api/contents/")
    names = {entry["name"] for entry in folder["content"]}
    assert (status, names >= {LESSON, "parallel"}) == (200, True)
    assert "expected" not in names
    _, notebook = served.ask(f"/api/contents/{LESSON}?type=notebook")
    assert "# Automatic differentiation" in notebook["content"]["cells"][0]["source"]
    _, settings = served.ask("/lab/api/settings/@jupyterlab/docmanager-extension:plugin")
    viewers = settings["schema"]["properties"]["defaultViewers"]["default"]
    assert viewers["python"] == "Jupytext Notebook"


def test_comments_stay_comments(served: Served) -> None:
    """When a script is opened, and when its notebook is saved; jupytext reads `# ls` as a magic."""
    place, cell = "/api/contents/comments.py", "# ls\n# !touch owned\n# %time 1\nx = 1"
    text = f"# %%\n{cell}\n"
    script = {"type": "file", "format": "text", "content": text}
    assert served.ask(place, method="PUT", data=script)[0] == 201
    _, opened = served.ask(f"{place}?type=notebook")
    assert [found["source"] for found in opened["content"]["cells"]] == [cell]
    saved = {"type": "notebook", "format": "json", "content": opened["content"]}
    assert served.ask(place, method="PUT", data=saved)[0] == 200
    assert served.ask(f"{place}?type=file")[1]["content"] == text
    assert served.ask(place, method="DELETE")[0] == 204


def test_without_the_token_every_request_is_refused(served: Served) -> None:
    """For files, kernels and the status; also with a wrong token."""
    for path in ("/api/contents/", "/api/kernels", "/api/status"):
        for token in ("", "0" * 48):
            assert served.ask(path, token=token)[0] == 403


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    """At 127.0.0.1 and no other address."""
    port = f"{urlsplit(served.url).port:04X}"

    def sockets() -> str:
        tables = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
        return "".join(table.read_text() for table in tables)

    rows = [row.split() for row in served.engine.thread.submit(sockets).result().splitlines()]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")]
    assert listening == [f"0100007F:{port}"]


def test_a_kernel_computes_with_torch_and_the_courses_package(served: Served) -> None:
    """Its sockets are files, because ports on a shared network would be open to everyone."""
    printed = served.execute(
        "import json, torch, ipykernel.connect as connect\n"
        "from parallel import launch\n"
        "print(torch.arange(4.0).square().sum().item())\n"
        "print(json.loads(connect.get_connection_info())['transport'])\n"
    )
    assert printed.split() == ["14.0", "ipc"]


def test_a_kernel_reads_no_expected_values_and_writes_only_to_the_students_folder(
    served: Served,
) -> None:
    """The container has nothing else of the course, and no capability."""
    printed = served.execute(
        "import pathlib, os\n"
        "print(*sorted(p.name for p in pathlib.Path('/course').iterdir()))\n"
        "print([str(p) for p in pathlib.Path('/course').rglob('expected')])\n"
        "for folder in ('/', '/course', '/course/lessons/parallel', '/lab'):\n"
        "    try: pathlib.Path(folder, 'new').touch(); print('written')\n"
        "    except OSError as error: print(error.errno)\n"
        "os.remove('/lab/new')\n"
        "print(os.getuid(), pathlib.Path('/proc/self/status').read_text().split('CapBnd:')[1][:17])"
    )
    user = str(os.getuid() or containers.STUDENT)
    course, read_only = ["copies.py", "lessons"], ["30"] * 3
    assert printed.split() == [*course, "[]", *read_only, "written", user, "0" * 16]


def test_the_labs_address_is_printed(served: Served) -> None:
    """If the network is shared, a warning comes before it."""
    before, address = served.output.rsplit("\n", 2)[:2]
    shared = "the lab shares this machine's network" in before
    assert shared == (served.engine.docker("network", "ls").count("bridge") == 0)
    assert address.startswith(f"{served.url}/lab?token={served.token}")
