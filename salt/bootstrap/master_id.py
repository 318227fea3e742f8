"""Print the master's minion id: ``cluster:master:id`` of the first file that exists. Usage: master_id.py FILE..."""

import sys
from pathlib import Path

import yaml

print(next(yaml.safe_load(Path(path).read_text())["cluster"]["master"]["id"] for path in sys.argv[1:] if Path(path).exists()))
