"""Print the master's minion id: ``cluster:master:id`` of the first file that exists. Usage: master_id.py FILE..."""

import sys
from pathlib import Path

import yaml

found = next(path for path in map(Path, sys.argv[1:]) if path.exists())
print(yaml.safe_load(found.read_text())["cluster"]["master"]["id"])
