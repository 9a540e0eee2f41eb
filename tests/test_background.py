"""Processes that stand back, by what the kernel says of them."""

import json
import subprocess
import sys

ASK = """
import ctypes, json, os, platform, threading
from runtime import background
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
background.stand_back()
found = []
for each in map(int, os.listdir("/proc/self/task")):
    told = ctypes.create_string_buffer(background._ATTRIBUTES.size)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, each, told, len(told), 0) == 0
    found.append(background._ATTRIBUTES.unpack(told))
done.set()
print(json.dumps([found, os.SCHED_BATCH, background.NICENESS, background.SLICE_NS]))
"""


def test_every_thread_is_batch_work_that_is_interrupted():
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    found, batch, niceness, slice_ns = json.loads(said.stdout)
    assert len(found) >= 2
    for _, policy, _, nice, _, runtime_ns, *_ in found:
        assert (policy, nice) == (batch, niceness)
        assert runtime_ns in (slice_ns, 0)  # a kernel before 6.12 has none of a thread's own
