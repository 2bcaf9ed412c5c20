"""How long the import of a module takes in this process, and how many modules it brings; prints a JSON object."""

import sys
from time import perf_counter

before = len(sys.modules)
started = perf_counter()
__import__(sys.argv[1])
seconds = perf_counter() - started
print(f'{{"import_ms": {seconds * 1e3}, "modules": {len(sys.modules) - before}}}')
