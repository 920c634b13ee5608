"""The kernel of a lesson: IPython's, with a display hook that makes shown values readable.

The result of a cell goes to the student as text and, in the same message, to the judge as data in
full precision; the text is made from the data. `python -m ci.worker.kernel -f FILE` starts one.
"""

import codecs
import dis
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.display import display
from jupyter_client.jsonutil import json_default
from traitlets import Type
from traitlets.config import Config

from ci.lesson.value import DIGITS, MIME
from ci.worker import figures, outside
from ci.worker.import_path import add_after_standard_library
from ci.worker.text import encode_with_text

# From Python 3.12 on, an intrinsic function that no other code of a cell's last line calls:
PRINT_EXPRESSION = dis.opmap.get("PRINT_EXPR") or dis.opmap["CALL_INTRINSIC_1"]

SETTINGS = Config(
    IPKernelApp={"exec_PYTHONSTARTUP": False},  # only the lesson's code runs in a lesson
    InteractiveShell={
        "colors": "nocolor",  # in tracebacks they cost a tenth of a second each
        "system_raise_on_error": True,  # `!false` raises
    },
    Session={"packer": "ci.worker.kernel.pack"},
    InlineBackend={
        "figure_formats": {"svg"},  # sharp on paper and on any screen
        "print_figure_kwargs": {"bbox_inches": "tight", "metadata": {"Date": None}},
        "rc": {"svg.hashsalt": "pytorch-course"},  # the same figure has the same bytes
    },
)
STREAMS = ("stdout", "stderr")
# The temporary file of a cell, in a traceback of Python's own:
CELL_FILE = re.compile(r'File "[^"]*/ipykernel_\d+/\d+\.py"')


class DisplayHook(ZMQShellDisplayHook):
    """Shows the result of a cell and attaches it as data."""

    def __call__(self, result: Any = None) -> None:
        """Show `result` as that of the cell, or like `display()` if it is another object.

        Only the last expression of a cell gives its result: not a thread, and no call of the hook.
        """
        caller = sys._getframe(1)
        shell: Any = self.shell
        shell.repair_streams()
        if shell.is_running(caller.f_code) and _prints_expression(caller):
            super().__call__(result)
        elif result is not None:
            display(result)

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The value of `result` and its text, or IPython's formats if no check could read it."""
        encoded, text = encode_with_text(result)
        if text:
            return {"text/plain": text, MIME: encoded}, {}
        data, metadata = super().compute_format_data(result)
        return {**data, MIME: encoded}, metadata


def _prints_expression(frame: FrameType) -> bool:
    """Whether the frame is at the instruction that shows the value of an expression."""
    return frame.f_code.co_code[frame.f_lasti] == PRINT_EXPRESSION


class Shell(ZMQInteractiveShell):
    """IPython's shell with this display hook."""

    displayhook_class = Type(DisplayHook)
    _running: CodeType | None = None
    _streams: Mapping[str, Any] = {}

    def is_running(self, code: CodeType) -> bool:
        """Whether this is the code of the cell that is executed."""
        return code is self._running

    async def run_code(self, code_obj: CodeType, *arguments: Any, **options: Any) -> bool:
        """Execute a part of a cell; True if it raises."""
        in_thread = threading.current_thread() is not threading.main_thread()
        if self._running or in_thread:  # it is a cell's own code that executes a cell
            return bool(await super().run_code(code_obj, *arguments, **options))
        self._running, self._streams = code_obj, {name: getattr(sys, name) for name in STREAMS}
        try:
            return bool(await super().run_code(code_obj, *arguments, **options))
        finally:
            self._running = None
            self.repair_streams()

    def repair_streams(self) -> None:
        """Undo an assignment to `sys.stdout` of something that cannot be flushed.

        The kernel could answer nothing more.
        """
        for name, stream in self._streams.items():
            try:
                if getattr(sys, name) is not stream:
                    getattr(sys, name).flush()
            except Exception:
                setattr(sys, name, stream)

    def ask_exit(self) -> None:
        """Make `exit()` the end of the lesson, at its cell. IPython would end the kernel later."""
        raise SystemExit

    def showtraceback(self, exc_tuple: Any = None, *arguments: Any, **options: Any) -> None:
        """Show an exception, as Python does if IPython cannot show it well."""
        self.repair_streams()
        error: Any = exc_tuple or sys.exc_info()
        kind, value, trace = error
        if not _is_for_python(value):
            super().showtraceback(exc_tuple, *arguments, **options)
            return
        below_shell = trace.tb_next if trace else None
        text = "".join(traceback.format_exception(kind, value, below_shell)).rstrip()
        self._showtraceback(kind, value, CELL_FILE.sub('File "<cell>"', text).split("\n"))

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        hook: Any = self.displayhook
        if getattr(hook, "msg", None) is not None:  # the text of the cell's result raises
            hook.msg = None
            raise evalue
        super()._showtraceback(etype, evalue, stb)


def _is_for_python(error: BaseException | None) -> bool:
    """Whether it contains a group, which IPython would only print, or a recursion without end, for
    which IPython needs a minute, since it shows each frame."""
    while error and not isinstance(error, BaseExceptionGroup | RecursionError):
        error = error.__context__
    return error is not None


def pack(message: Any) -> bytes:
    """A message as JSON, in which a lone surrogate is text, as in Python's own stderr.

    Jupyter would lose the message, or put a replacement character in its place. Raises ValueError
    for an integer that nobody could read, although the lesson has raised Python's limit.
    """
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(DIGITS)
    try:
        text = json.dumps(message, default=json_default, ensure_ascii=False)
    finally:
        sys.set_int_max_str_digits(limit)
    return text.encode("utf-8", "lone-surrogates")


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    escaped = ascii(error.object[error.start : error.end])[1:-1]
    return escaped.replace("\\", "\\\\"), error.end


codecs.register_error("lone-surrogates", _escape)


class Kernel(IPythonKernel):
    """IPython's kernel with this shell."""

    shell_class = Type(Shell)


def start(on_ready: Callable[[], None] = lambda: None) -> None:
    """Run a kernel with the arguments of the command line; `on_ready` is called before a lesson."""
    figures.prepare()
    # Python was started with -P, which keeps the lesson's neighbours away from our own imports. The
    # lesson may use them: as in Jupyter, they come after the standard library.
    add_after_standard_library("")
    parent = os.getppid()  # with which it ends
    app = IPKernelApp.instance(kernel_class=Kernel, config=SETTINGS, parent_handle=parent)
    app.initialize()
    on_ready()
    outside.refuse(Path.cwd())
    app.start()


if __name__ == "__main__":
    # Started as __main__: the classes above are then `__main__.Kernel`, so take the importable one.
    from ci.worker.kernel import start as start_importable

    start_importable()
