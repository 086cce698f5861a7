"""The load of test_run: a thread that is not the leader becomes the program in the arguments.

It then has its process's id, and its own is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time

if __name__ == "__main__":
    threading.Thread(
        target=os.execv, args=(sys.executable, [sys.executable, *sys.argv[1:]])
    ).start()
    time.sleep(600)
