"""Print ``cluster:master:KEY`` (id, address) of the first file that exists. Usage: cluster_master.py KEY FILE..."""

import sys
from pathlib import Path

import yaml

found = next(path for path in map(Path, sys.argv[2:]) if path.exists())
print(yaml.safe_load(found.read_text())["cluster"]["master"][sys.argv[1]])
