"""What it takes to go from three leaves to four and back, under readers and writers.

python3 benches/rebalance.py STOA SCRATCH [SCALE]: STOA is the program, SCRATCH a folder that is not there yet.
TPC-H data of a scale (0.2) in a database with REDUNDANCY 2; two clients insert rows, one asks for sums of lineitem.
"""
import pathlib
import statistics
import subprocess
import sys
import time

from cluster import Cluster, Load

QUERY = "SELECT count(*) AS n, sum(l_quantity) AS q FROM lineitem"


def copies(cluster):
    """Copies of partitions by the port of their leaf."""
    found = {}
    for row in cluster.table("SHOW PARTITIONS"):
        found.setdefault(row["Port"], set()).add(row["Ordinal"])
    return found


def step(cluster, load, what, statement):
    """Runs a statement; what it moved, and what clients noticed."""
    before, marks = copies(cluster), {name: len(times) for name, times in load.times.items()}
    failed, began = len(load.failed), time.perf_counter()
    cluster.sql(statement)
    took, after = time.perf_counter() - began, copies(cluster)
    moved = sum(len(ordinals - before.get(port, set())) for port, ordinals in after.items())
    time.sleep(1)
    stall = max(t for name in ("writer 0", "writer 1") for t in load.times[name][marks[name]:])
    slowest = max(load.times["reader"][marks["reader"]:])
    print(f"{what}: {took:.1f} s, {moved} copies made; longest write {1e3 * stall:.0f} ms, longest query {1e3 * slowest:.0f} ms, "
          f"{len(load.failed) - failed} statements failed", flush=True)
    return moved


def main():
    stoa, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    scale = sys.argv[3] if len(sys.argv) > 3 else "0.2"
    cluster = Cluster(stoa, folder, 1, 3)
    cluster.sql("DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 12 REDUNDANCY 2")
    cluster.run("tpch", "--connect", cluster.connect(), "--scale", scale, "--runs", "1")
    cluster.sql("CREATE TABLE rows (id BIGINT PRIMARY KEY)")
    sizes = [int(row["Bytes"]) for row in cluster.table("SHOW CLUSTER STATUS") if row.get("Bytes", "").isdigit()]
    print(f"12 partitions, two copies each{f', {sum(sizes) / 1e6:.0f} MB altogether' if sizes else ''}", flush=True)
    node = [stoa, "leaf", "--data", str(folder / "leaf4"), "--listen", "127.0.0.1:0"]
    leaf = subprocess.Popen(node, stdout=subprocess.PIPE, stderr=open(folder / "leaf4.log", "w"), text=True)
    address = leaf.stdout.readline().split(" listening on ")[1].strip()
    answer = cluster.sql(QUERY)
    insert = lambda writer: lambda number: f"INSERT INTO rows VALUES ({2 * number + writer})"
    load = Load(cluster, {"writer 0": insert(0), "writer 1": insert(1), "reader": lambda _: QUERY})
    time.sleep(5)
    calm = [t for name in ("writer 0", "writer 1") for t in load.times[name]]
    print(f"before: longest write {1e3 * max(calm):.0f} ms, median {1e3 * statistics.median(calm):.0f} ms (each a process of its own)")
    cluster.sql(f"ADD LEAF '{address}'")
    planned = cluster.table("EXPLAIN REBALANCE PARTITIONS ON stoa")
    made = [row for row in planned if row["Action"].startswith("COPY")]
    bytes_moved = sum(int(row["Bytes"]) for row in made if row.get("Bytes", "").isdigit())
    moved = step(cluster, load, "REBALANCE PARTITIONS onto four leaves", "REBALANCE PARTITIONS ON stoa")
    print(f"  planned {len(made)} copies, {bytes_moved / 1e6:.0f} MB; a fourth of 24 copies is the least: 6 ({moved / 6:.2f} times)")
    held = len(copies(cluster)[address.rsplit(":", 1)[1]])
    moved = step(cluster, load, "REMOVE LEAF of the fourth", f"REMOVE LEAF '{address}'")
    print(f"  the least is what it held: {held} ({moved / held:.2f} times)")
    load.end()
    assert cluster.sql(QUERY) == answer
    written = len(load.times["writer 0"]) + len(load.times["writer 1"]) - len(load.failed)
    count = cluster.sql("SELECT count(*) AS n, count(DISTINCT id) AS d FROM rows").split()[1]
    print(f"{written} rows acknowledged, {count} there (all, distinct); {len(load.failed)} statements failed")
    for failure in load.failed[:3]:
        print(failure.strip())
    leaf.kill()
    leaf.wait()
    cluster.stop()


main()
