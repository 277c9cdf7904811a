"""The launcher at its path of 0.1.0, which the programs of a supervisord name that was started by that version.

Supervisor starts a program that has died with the command that it read when the program was launched. Goes away in
0.3.0: a supervisord that is started by 0.2.0 has read the new path.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("system") / "launcher.py"), run_name="__main__")
