"""Programs that take the place of those that cannot be had: in the tests' lab only, and called what they are."""

import io
import json
import tarfile
from pathlib import Path

GRAFANA = Path(__file__).with_name("grafana.py")


def grafana(target, version):
    """Write the stand-in for Grafana to ``target``: an archive of the shape of Grafana's, with this version.

    Modes are such that an unpacked file would be for its owner alone.
    """
    top = f"grafana-{version}"
    plugins = {f"data/plugins-bundled/{name}/plugin.json": json.dumps({"id": name}) for name in ("prometheus", "loki")}
    files = {"VERSION": version, "public/index.html": "", "bin/grafana": GRAFANA.read_text(), **plugins}
    with tarfile.open(target, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.mode = 0o750 if name.startswith("bin/") else 0o640
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
