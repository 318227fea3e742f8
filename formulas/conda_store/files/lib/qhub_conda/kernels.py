"""Environments as Jupyter's kernels: one directory of kernel specifications for each namespace.

DIRECTORY/environments/NAMESPACE/NAME is conda-store's link to an environment's current build. What kernels that has are
in DIRECTORY/jupyter/NAMESPACE/kernels as NAMESPACE.NAME, with the build's own path: a kernel that runs while another
build becomes current goes on in its own.
"""

import fcntl
import json
import shutil
import tempfile
from pathlib import Path


def publish(directory):
    """Make the kernel specifications in ``directory`` what its environments say, and drop links to removed ones."""
    directory = Path(directory)
    jupyter = directory / "jupyter"
    jupyter.mkdir(exist_ok=True)
    with (jupyter / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = {}
        for link in directory.glob("environments/*/*"):
            if link.is_symlink() and not link.exists():
                link.unlink()
                link.with_name(f"{link.name}.lock").unlink(missing_ok=True)
            elif link.is_symlink():
                namespace = link.parent.name
                for name, specification in kernels(link.resolve(), namespace, link.name):
                    wanted[jupyter / namespace / "kernels" / name] = specification
        for old in set(jupyter.glob("*/kernels/*")) - set(wanted):
            shutil.rmtree(old)
        for place, (source, specification) in wanted.items():
            write(place, source, specification)


def kernels(build, namespace, name):
    """Yield ``(kernel's name, (its directory in the build, its specification))`` of each kernel in a build."""
    for source in sorted(build.glob("share/jupyter/kernels/*")):
        if source.resolve() != source or not all(map(is_plain, source.rglob("*"))):
            continue  # the copy is published: no link to a file elsewhere, no pipe that blocks the worker
        try:
            found = json.loads((source / "kernel.json").read_text())
            program, *arguments = found["argv"]
            own = build / "bin" / Path(program).name
            python = source.name in ("python3", "python")
            suffix = "" if python else f".{source.name}"
            title = f"{name} ({namespace})" if python else f"{found['display_name']} in {name} ({namespace})"
            found |= {
                "argv": [str(own) if own.exists() else program, *arguments],
                "display_name": title,
                "env": {"CONDA_PREFIX": str(build), "PATH": f"{build}/bin:${{PATH}}", **found.get("env", {})},
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not one that would start
            continue
        yield f"{namespace}.{name}{suffix}", (source, found)


def is_plain(path):
    return not path.is_symlink() and (path.is_file() or path.is_dir())


def write(place, source, specification):
    """Make the directory of one kernel; nothing is done if it is as it should be."""
    text = json.dumps(specification, indent=1) + "\n"
    file = place / "kernel.json"
    if file.exists() and file.read_text() == text:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
        new = Path(scratch, "new")
        shutil.copytree(source, new, copy_function=shutil.copyfile)
        (new / "kernel.json").write_text(text)
        new.chmod(0o755)
        if place.exists():
            place.rename(Path(scratch, "old"))
        new.rename(place)
