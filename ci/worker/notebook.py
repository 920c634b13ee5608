"""Execute a lesson's notebook with Papermill, and an engine that keeps its own verdict.

Papermill's verdict cannot be trusted: it calls `sys.exit(0)` a success, marks the cells that a dead
kernel never ran as completed, and raises at an error that a cell is meant to show.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from ci.lesson.exercises import BLANKS, Exercise
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.machine.atomic import private_folder
from ci.worker import blanks, executed, machine
from ci.worker.forked import ForkedKernel, ForkingProvisioner
from ci.worker.import_path import missing_modules

ENGINE = "pytorch-course"
MOST_PRINTED = 50_000  # characters per cell, and of an error's text
MOST_SHOWN = 64 * 2**20  # characters of the results and pictures of a lesson, as JSON
LONGEST_REASON = 1000  # characters
LONGEST_TMP = 60  # a socket's path has at most 107 bytes, including our own names


@dataclass
class Verdict:
    """How an execution ended. `cell` and `reason` are empty where each cell ran."""

    notebook: NotebookNode
    cell: str = ""
    reason: str = ""
    traceback: str = ""
    machine_fault: bool = False


def execute(
    lesson: Lesson,
    parameters: Mapping[str, Value],
    *,
    variables: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] = lambda index, total: None,
    kernel: ForkedKernel | None = None,
) -> Verdict:
    """Execute `lesson` with `parameters` in a kernel of its own, in the lesson's folder.

    `variables` are added to the kernel's environment; `on_cell(index, total)` is called before each
    cell; `kernel` is a forked kernel, in place of a fresh one. A lesson that fails gives a Verdict
    with a reason, never an exception.
    """
    verdict = Verdict(nbformat.from_dict(lesson.notebook))  # a copy, of Papermill's class
    given = {name: value for name, value in parameters.items() if name in lesson.parameters}
    with _folder_for_sockets() as folder:
        papermill.execute_notebook(
            verdict.notebook,
            None,
            given,
            engine_name=ENGINE,
            progress_bar=False,
            request_save_on_cell_execute=False,
            start_timeout=120,
            # for LessonEngine:
            verdict=verdict,
            on_cell=on_cell,
            folder=folder,
            variables=dict(variables or {}),
            kernel=kernel,
            exercises=lesson.exercises,
            resources={"metadata": {"path": str(lesson.path.parent)}},
        )
    executed.tidy(verdict.notebook)
    return verdict


class LessonEngine(NBClientEngine):
    """Papermill's engine with the lesson's kernel and a loop over the cells of our own."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Execute the cells of `nb_man.nb` and fill in `options["verdict"]`."""
        verdict, folder = options["verdict"], options["folder"]
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=LessonKernels(),
            transport="ipc",  # every user of the machine could connect to a TCP port
            ip=str(folder / "k"),
            connection_file=str(folder / "k.json"),
            client_class="ci.worker.kernel_client.LessonKernelClient",
        )
        manager.provisioner = ForkingProvisioner(
            options["kernel"], kernel_spec=manager.kernel_spec, parent=manager
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
        client.exercises = options["exercises"]
        environment = {
            **os.environ,
            **options["variables"],
            "IPYTHONDIR": str(folder),
            "TMPDIR": str(folder),  # so that a killed kernel leaves nothing behind
        }
        client.gpus = bool(environment.get("CUDA_VISIBLE_DEVICES"))
        try:
            client.execute(env=environment, cleanup_kc=True)
        except (DeadKernelError, RuntimeError) as error:
            # DeadKernelError: it died in a cell. RuntimeError: it never came up, or died after.
            verdict.reason = verdict.reason or f"the kernel: {error}"
        # Papermill gets an empty notebook back: at an error it would insert cells and raise.
        verdict.notebook = nb_man.nb
        nb_man.nb = nbformat.v4.new_notebook(metadata=nb_man.nb.metadata)


class LessonKernels(KernelSpecManager):
    """Offers only the lesson's kernel, regardless of the kernels that the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The lesson's kernel; with -P, no module beside the lesson can hide one that it needs."""
        argv = [sys.executable, "-P", "-m", "ci.worker.kernel", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class LessonClient(PapermillNotebookClient):
    """Executes cells one by one, and stops at the first fault with its cell and reason."""

    exercises: Sequence[Exercise] = ()
    gpus = False  # whether the run has leased any

    def __init__(
        self, nb_man: Any, *, verdict: Verdict, on_cell: Callable[[int, int], None], **options: Any
    ) -> None:
        super().__init__(nb_man, **options)
        self.verdict, self.on_cell, self.printed, self.shown = verdict, on_cell, 0, 0

    def papermill_execute_cells(self) -> None:
        """Replaces Papermill's loop. A cell with `raises` may raise; the type is judged later."""
        if self.gpus and not self._has_gpus():
            return
        for index, cell in enumerate(self.nb.cells):
            self.on_cell(index, len(self.nb.cells))
            if not self._execute(cell, index):
                return
        if self.exercises:
            self._execute_blanks()

    def _has_gpus(self) -> bool:
        """Whether CUDA shows the kernel the leased GPUs; if not, the machine is at fault."""
        question = nbformat.v4.new_code_cell(machine.REQUIRE_GPUS)
        cells, self.nb.cells = self.nb.cells, [question]
        try:
            self.execute_cell(question, 0, store_history=False)
        except CellExecutionError as error:
            remedy = machine.remedy(error.evalue, gpus=True) or "try invoke doctor"
            self.verdict.reason = f"{_reason(error)}{_blame(remedy, gpus=True)}"
            self.verdict.machine_fault = True
            return False
        finally:
            self.nb.cells = cells
        return True

    def _execute(self, cell: NotebookNode, index: int, among: str = "") -> bool:
        """Execute a cell; False if it failed, which is noted. `among` says where else it runs."""
        self.printed = 0
        self.allow_error_names = [cell.metadata["raises"]] if "raises" in cell.metadata else []
        try:
            self.execute_cell(cell, index)
        except CellExecutionError as error:
            remedy = machine.remedy(f"{error.ename}: {error.evalue}", gpus=self.gpus)
            blame = _blame(remedy, gpus=self.gpus) if remedy else ""
            reason = f"{among}{_reason(error)}{self._also_missing(error)}{blame}"
            self._note(cell, reason, error.traceback)
            self.verdict.machine_fault = bool(remedy)
            return False
        except CellTimeoutError as error:
            self._note(cell, f"{among}not done within {self.timeout} s")
            raise DeadKernelError from error  # it answers nothing more
        except DeadKernelError:
            self._note(cell, f"{among}its kernel {_ending(self.km.provisioner.process)}")
            raise
        if self.shown > MOST_SHOWN:
            most = MOST_SHOWN // 2**20
            amount = f"{self.shown / 2**20:.0f} MiB up to here, at most {most}"
            self._note(cell, f"{among}the lesson shows {amount}")
            return False
        if "raises" not in cell.metadata and (shown := _shown_error(cell)):
            self._note(cell, among + _reason(shown), "\n".join(shown.traceback))
            return False
        return True

    def _execute_blanks(self) -> None:
        """Execute the blanks, and keep what they show in the notebook's metadata."""
        executed, self.nb.cells = self.nb.cells, blanks.cells(self.nb, self.exercises)
        self.timeout = blanks.DEADLINE_S
        try:
            among = "in the exercises' notebook, which has only the parameters and the setup: "
            if all(self._execute(cell, index, among) for index, cell in enumerate(self.nb.cells)):
                self.nb.metadata[BLANKS] = blanks.outputs(self.nb.cells, self.exercises)
        finally:
            self.nb.cells = executed

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, index: int) -> Any:
        """Keep of a cell's output as much as a person might read, and a notebook can hold."""
        content = msg["content"]
        if msg["msg_type"].startswith("comm_"):  # of a widget, which no handout shows
            return None
        if "data" in content:
            self.shown += len(json.dumps(content))
            if self.shown > MOST_SHOWN:
                return None
        if msg["msg_type"] == "error":
            content["evalue"] = content["evalue"][:MOST_PRINTED]
            content["traceback"] = "\n".join(content["traceback"])[:MOST_PRINTED].split("\n")
        if msg["msg_type"] == "stream":
            room = MOST_PRINTED - self.printed
            self.printed += len(content["text"])
            if room <= 0 or not content["text"]:
                return None
            if self.printed > MOST_PRINTED:
                content["text"] = content["text"][:room] + "\n… the rest is left out\n"
        return super().process_message(msg, cell, index)

    def _also_missing(self, error: CellExecutionError) -> str:
        """What else is missing of the modules that the lesson imports."""
        if error.ename != "ModuleNotFoundError":
            return ""
        sources = [cell.source for cell in self.nb.cells if cell.cell_type == "code"]
        missing = missing_modules(sources, Path(self.resources["metadata"]["path"]))
        others = [name for name in missing if f"'{name}'" not in error.evalue]
        return f" (also missing: {', '.join(others)})" if others else ""

    def _note(self, cell: NotebookNode, reason: str, traceback: str = "") -> None:
        self.verdict.cell, self.verdict.reason, self.verdict.traceback = cell.id, reason, traceback


def _shown_error(cell: NotebookNode) -> NotebookNode | None:
    """The error that a cell shows although it was executed, as of a figure that can't be drawn."""
    return next((out for out in cell.get("outputs", []) if out.output_type == "error"), None)


def _reason(error: CellExecutionError | NotebookNode) -> str:
    if error.ename == "SystemExit":
        return f"the lesson left by sys.exit({error.evalue or ''})"[:LONGEST_REASON]
    return f"{error.ename}: {error.evalue.lstrip()}".splitlines()[0][:LONGEST_REASON]


def _blame(remedy: str, *, gpus: bool) -> str:
    found = f" ({machine.versions()})" if gpus else ""
    return f"; the machine is at fault{found}: {remedy}"


def _ending(process: Any) -> str:
    code = process.poll()
    if code is not None and code < 0:
        hint = "; perhaps the machine was out of memory" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"ended by itself with exit status {code}"


def _folder_for_sockets() -> contextlib.AbstractContextManager[Path]:
    """A folder for the sockets and settings of one kernel, with a path that is short enough."""
    too_long = len(tempfile.gettempdir()) > LONGEST_TMP
    return private_folder(Path("/tmp") if too_long else None)


papermill_engines.register(ENGINE, LessonEngine)
