"""How long the 22 TPC-H queries take on a cluster, beside a data directory: one coordinator and two leaves on this machine.

python3 benches/cluster_ratio.py STOA SCRATCH [PAIRS] [RUNS]

Scale 1, PAIRS times (default 3) first on one, then on the other; of RUNS runs (default 5) of a query the best counts. A leaf has as many
threads as fall to it, so that both sides have all processors.
"""
import json
import os
import pathlib
import shutil
import statistics
import sys

from cluster import Cluster


def main(stoa, scratch, pairs=3, runs=5):
    folder = pathlib.Path(scratch) / "ratio"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cluster = Cluster(stoa, folder / "cluster", 1, 2)
    places = {"directory": ["--data", str(folder / "data")], "cluster": ["--connect", cluster.connect()]}
    times = {place: [] for place in places}
    try:
        for number in range(pairs + 1):
            for place, where in places.items():
                cluster.run("tpch", "--scale", "1", *where, "--runs", str(runs if number else 1), "--json", str(folder / "times.json"))
                if number:  # The first time loads.
                    queries = json.loads((folder / "times.json").read_text())["queries"]
                    times[place].append([queries[name] for name in sorted(queries)])
    finally:
        cluster.stop()
    sums = [tuple(sum(times[place][pair]) for place in ("directory", "cluster")) for pair in range(pairs)]
    for own, on_cluster in sums:
        print(f"directory {own:.3f} s, cluster {on_cluster:.3f} s, {on_cluster / own:.2f} times")
    print(f"median {statistics.median(on_cluster / own for own, on_cluster in sums):.2f} times; by query, the best of all pairs:")
    for query in range(len(times["cluster"][0])):
        own, on_cluster = (min(pair[query] for pair in times[place]) * 1e3 for place in ("directory", "cluster"))
        print(f"q{query + 1:02} {own:6.1f} ms {on_cluster:6.1f} ms {on_cluster / own:5.2f} {on_cluster - own:+6.1f} ms")


if __name__ == "__main__":
    os.environ.pop("STOA_THREADS", None)
    main(sys.argv[1], sys.argv[2], *(int(n) for n in sys.argv[3:5]))
