"""Imported once by the server that forks the processes of handouts, so that none of them has to."""

import os
import signal

NICENESS = 10  # lessons measure time, so their execution goes first

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also goes to the parent, which ends us
os.nice(NICENESS)

import fontTools.subset  # noqa: E402, F401

from ci.handout import converters  # noqa: E402

converters.HTML.prepare()
converters.PDF.prepare()
