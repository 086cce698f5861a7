"""Leave seven pipes open in a process that goes on for a while; append a letter to a file first.

Arguments: the file, how long to hold the pipes in seconds.
"""

import os
import sys
import time

with open(sys.argv[1], "a") as begun:
    begun.write("x")
made, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    kept = [os.pipe() for _ in range(7)]
    os.write(tell, b"x")
    for fd in (0, 1, 2):
        os.close(fd)
    time.sleep(float(sys.argv[2]))
else:
    os.read(made, 1)
