"""Runs one instance: `python -I -S launcher.py FILE`, FILE being JSON with command, cwd and env. Standard library only.

The supervisor watches this process; the app's shell and whatever it starts are its children. It ends when the last of
them has, so that an app that finishes its requests after SIGTERM is not taken for stopped when merely its shell is.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def main(path: str) -> int:
    with open(path) as file:
        what = json.load(file)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shell = os.fork()
    if not shell:
        os.chdir(what["cwd"])
        os.execve("/bin/sh", ["/bin/sh", "-c", what["command"]], what["env"])
    # The supervisor signals the whole group: the app has heard it too, and says when it is done.
    signal.signal(signal.SIGTERM, lambda *_: None)
    code = 0
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return code
        if pid == shell:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
