"""A lesson script to an executed notebook: Papermill, with an engine that keeps its own verdict.

Papermill's own verdict can't be used: it calls `sys.exit(0)` a success, marks the cells that a dead
kernel never ran as completed, and raises at an error that a cell is meant to show.
"""

import contextlib
import copy
import math
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from ci.lesson.parameters import Value
from ci.lesson.reader import Lesson
from ci.worker.forked import Nursery, WarmProvisioner

ENGINE = "pytorch-course"
MOST_PRINTED = 50_000  # characters a cell
BACKEND = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # or figures vanish
ASK_AGAIN_S = 1.0  # whether a kernel is ready
LONGEST_TMP = 60  # a socket's path ends at 107 bytes, and our own names take some of them


@dataclass
class Verdict:
    """How an execution ended. `cell` and `reason` are empty where each cell ran."""

    notebook: NotebookNode
    cell: str = ""
    reason: str = ""
    traceback: str = ""


def execute(
    lesson: Lesson,
    parameters: Mapping[str, Value],
    *,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] = lambda index, total: None,
    nursery: Nursery | None = None,
) -> Verdict:
    """Execute `lesson` with `parameters` in a kernel of its own, its folder as working directory.

    `environment` is added to the kernel's; `on_cell(index, total)` is called before each cell.
    The kernel comes from `nursery`, where that has one to give.
    A lesson that fails is a Verdict with a reason, never an exception.
    """
    verdict = Verdict(copy.deepcopy(lesson.notebook))
    given = {name: value for name, value in parameters.items() if name in lesson.parameters}
    with _private_folder() as folder:
        papermill.execute_notebook(
            verdict.notebook,
            None,
            given,
            engine_name=ENGINE,
            progress_bar=False,
            request_save_on_cell_execute=False,
            start_timeout=120,
            # for our engine:
            verdict=verdict,
            on_cell=on_cell,
            folder=folder,
            environment=dict(environment or {}),
            nursery=nursery or Nursery(),
            resources={"metadata": {"path": str(lesson.path.parent)}},
        )
    _tidy(verdict.notebook)
    return verdict


def save(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # whatever the lesson may have put there, a link perhaps
    partial.write_text(nbformat.v4.writes(notebook), encoding="utf-8")
    partial.replace(path)


class LessonEngine(NBClientEngine):
    """Papermill's engine with our kernel and our loop over the cells."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Run each cell of `nb_man.nb`; what happened is left in `options["verdict"]`."""
        verdict, folder = options["verdict"], options["folder"]
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=LessonKernels(),
            transport="ipc",  # a TCP port would be open to everybody on the machine
            ip=str(folder / "k"),
            connection_file=str(folder / "k.json"),
            client_class=f"{__name__}.{LessonKernelClient.__name__}",
        )
        manager.provisioner = WarmProvisioner(
            options["nursery"], kernel_spec=manager.kernel_spec, parent=manager
        )
        client = LessonClient(
            nb_man,
            km=manager,
            startup_timeout=options["start_timeout"],
            resources=options["resources"],
            shutdown_kernel="immediate",
            verdict=verdict,
            on_cell=options["on_cell"],
        )
        environment = {
            **os.environ,
            **options["environment"],
            "IPYTHONDIR": str(folder),
            "TMPDIR": str(folder),  # so that what a killed kernel leaves there goes with it
            **BACKEND,
        }
        try:
            client.execute(env=environment, cleanup_kc=True)
        except (DeadKernelError, RuntimeError) as error:
            # DeadKernelError: it died in a cell. RuntimeError: it never came up, or died after.
            verdict.reason = verdict.reason or f"the kernel: {error}"
        # Papermill goes on without cells: to what raised it would add some, and it would raise.
        verdict.notebook = nb_man.nb
        nb_man.nb = nbformat.v4.new_notebook(metadata=nb_man.nb.metadata)


class LessonKernelClient(AsyncKernelClient):
    """Jupyter's client, which does not wait for nothing to happen."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Until the kernel has answered on one channel and is heard on the other.

        Jupyter goes on when nothing was heard for 0.2 s. RuntimeError where it dies or is late.
        """
        deadline = time.monotonic() + (timeout or math.inf)
        while time.monotonic() < deadline:
            asked = self.kernel_info()
            with contextlib.suppress(queue.Empty):
                await self.shell_channel.get_msg(timeout=ASK_AGAIN_S)
                heard = None
                while heard != (asked, "idle"):  # all that was published before has come, too
                    message = await self.iopub_channel.get_msg(timeout=ASK_AGAIN_S)
                    state = message["content"].get("execution_state")
                    heard = (message["parent_header"].get("msg_id"), state)
                return
            if not await self.is_alive():
                raise RuntimeError("it died before it was ready")
        raise RuntimeError(f"it was not ready in {timeout:g} s")


class LessonKernels(KernelSpecManager):
    """The one kernel there is, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Our kernel, by this interpreter; -P keeps a lesson's neighbours off its imports."""
        argv = [sys.executable, "-P", "-m", "ci.worker.kernel", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class LessonClient(PapermillNotebookClient):
    """Runs cells one by one, stops at the first fault, and says which and why."""

    def __init__(
        self, nb_man: Any, *, verdict: Verdict, on_cell: Callable[[int, int], None], **options: Any
    ) -> None:
        super().__init__(nb_man, **options)
        self.verdict, self.on_cell, self.printed = verdict, on_cell, 0

    def papermill_execute_cells(self) -> None:
        """Replaces Papermill's loop. A cell with `raises` may raise; its type is judged later."""
        for index, cell in enumerate(self.nb.cells):
            self.on_cell(index, len(self.nb.cells))
            self.printed = 0
            self.allow_error_names = [cell.metadata["raises"]] if "raises" in cell.metadata else []
            try:
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                self._note(cell, _reason(error), error.traceback)
                return
            except DeadKernelError:
                self._note(cell, f"its kernel {_ending(self.km.provisioner.process)}")
                raise

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, index: int) -> Any:
        """Keep what a cell prints, up to a length that somebody might read."""
        if msg["msg_type"] == "stream":
            room = MOST_PRINTED - self.printed
            self.printed += len(msg["content"]["text"])
            if room <= 0:
                return None
            if self.printed > MOST_PRINTED:
                msg["content"]["text"] = (
                    msg["content"]["text"][:room] + "\n… the rest is left out\n"
                )
        return super().process_message(msg, cell, index)

    def _note(self, cell: NotebookNode, reason: str, traceback: str = "") -> None:
        self.verdict.cell, self.verdict.reason, self.verdict.traceback = cell.id, reason, traceback


def _reason(error: CellExecutionError) -> str:
    if error.ename == "SystemExit":
        return f"the lesson left by sys.exit({error.evalue or ''})"
    return f"{error.ename}: {error.evalue}".splitlines()[0]


def _ending(process: Any) -> str:
    code = process.poll()
    if getattr(process, "lost", False):
        return "was lost with the parent of warm kernels, which has died"
    if code is not None and code < 0:
        hint = "; perhaps the machine was out of memory" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"ended by itself with exit status {code}"


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for the kernel's sockets and settings, of this run and user alone."""
    long = len(tempfile.gettempdir()) > LONGEST_TMP
    folder = tempfile.mkdtemp(prefix=f"pytorch-course-{os.getpid()}-", dir="/tmp" if long else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tidy(notebook: NotebookNode) -> None:
    """Take out what Papermill wrote for itself; its cell states are not to be believed."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = list(_joined(cell.outputs))


def _joined(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """What is printed in one go as one output: the kernel sends it in pieces, as time passes."""
    for name, group in groupby(outputs, lambda output: output.get("name", "")):
        several = list(group)
        if name:
            several[0].text = "".join(output.text for output in several)
        yield from several[:1] if name else several


papermill_engines.register(ENGINE, LessonEngine)
