"""What 100 nodes cost Prometheus: memory, and what a day takes on the disk."""

import json

from tests.lab.harness import lab, settings

# Runs another Prometheus on the master for a while, that asks one node's exporter under many names, at the interval and
# with the rules that Prometheus itself has; prints what came of it.
PROBE = """
import json, pathlib, shutil, subprocess, sys, tempfile, time, urllib.request
count, seconds, address = json.loads(sys.argv[1])
scratch = pathlib.Path(tempfile.mkdtemp())
targets = [{"targets": [address], "labels": {"instance": f"n{n}"}} for n in range(count)]
(scratch / "p.yml").write_text(json.dumps({
    "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
    "rule_files": ["/etc/prometheus/rules.d/nodes.yml"],
    "scrape_configs": [{"job_name": "node", "static_configs": targets},
                       {"job_name": "self", "static_configs": [{"targets": ["127.0.0.1:19090"]}]}],
}))
words = ["prometheus", f"--config.file={scratch}/p.yml", f"--storage.tsdb.path={scratch}/data", "--log.level=error",
         "--web.listen-address=127.0.0.1:19090", "--web.enable-admin-api"]
process = subprocess.Popen(words)
def ask(path, body=None):
    with urllib.request.urlopen(f"http://127.0.0.1:19090/api/v1/{path}", body, timeout=60) as answer:
        return json.load(answer)["data"]
def number(name):  # its own: exporters tell of their memory too
    return float(ask(f"query?query={name}%7Bjob=%22self%22%7D")["result"][0]["value"][1])
try:
    time.sleep(seconds)
    found = {"series": number("prometheus_tsdb_head_series"),
             "memory": number("process_resident_memory_bytes"), "cpu": number("process_cpu_seconds_total")}
    name = ask("admin/tsdb/snapshot", b"")["name"]
    block = next(path for path in (scratch / "data/snapshots" / name).iterdir() if path.is_dir())
    found["chunks"] = sum(path.stat().st_size for path in (block / "chunks").iterdir())
    found["stored"] = json.loads((block / "meta.json").read_text())["stats"]["numSamples"]
    print(json.dumps(found))
finally:
    process.terminate()
    process.wait()
    shutil.rmtree(scratch)
"""
NODES, SECONDS = 100, 240


def main():
    """100 nodes beside one: memory, series, CPU; bytes that a sample takes, and from them a day's."""
    lab.up()
    master = lab.node("master")
    rows = {}
    for count in (1, NODES):
        words = json.dumps([count, SECONDS, f"{settings.ADDRESSES['w1']}:9100"])
        rows[count] = json.loads(master.run(["/usr/bin/python3", "-c", PROBE, words], timeout=SECONDS + 120).stdout)
        row = rows[count]
        print(
            f"  {count:4} nodes: {row['memory'] / 1e6:6.1f} MB of memory, {row['series']:8.0f} series, "
            f"{row['cpu'] / SECONDS * 100:5.1f} % of one CPU, {row['chunks'] / row['stored']:.2f} bytes a sample",
            flush=True,
        )
    one, many = rows[1], rows[NODES]
    day = (many["series"] - one["series"]) * 86400 / 15 * many["chunks"] / many["stored"]
    more = (many["memory"] - one["memory"]) / 1e6
    print(f"  {NODES} nodes: {more:.0f} MB of memory more ({many['memory'] / one['memory']:.2f}x),")
    print(f"  {day / 1e6:.0f} MB of the disk a day at most: the longer the chunks, the less a sample takes")
