"""How long a cluster takes from a fault to the first right answer, and whether it loses or doubles rows.

python3 benches/failover.py STOA SCRATCH [RUNS]: STOA is the program, SCRATCH a folder that is not there yet.
A cluster of three coordinators and two leaves with REDUNDANCY 2, then (as root) one of one coordinator and two leaves in network
namespaces; two clients insert numbered rows all the time.
"""
import os
import pathlib
import signal
import statistics
import sys
import threading
import time

from cluster import Apart, Cluster

CHECK = "SELECT count(*) AS n, sum(id) AS s FROM fixed"
ANSWER = "n,s\n1000,499500\n"


def leader(cluster):
    port = next(row["Port"] for row in cluster.table("SHOW AGGREGATORS") if "leader" in row.values())
    return next(node for node in cluster.coordinators if cluster.address(node).endswith(":" + port))


def all_there(cluster):
    cluster.whole(2)
    while cluster.sql("SHOW AGGREGATORS").count("online") < len(cluster.coordinators):
        time.sleep(0.05)


def measure(cluster, what, runs, fault, mend, ask, answer):
    times = []
    for run in range(runs):
        all_there(cluster)
        time.sleep(0.5)
        mark = fault(run)
        began = time.perf_counter()
        assert ask() == answer, what
        times.append(time.perf_counter() - began)
        mend(mark)
    times.sort()
    print(f"{what}: {runs} runs, median {statistics.median(times):.2f} s, worst {times[-1]:.2f} s", flush=True)


def under_load(cluster, faults):
    """Two clients insert numbered rows while faults happen; what was acknowledged must be there once."""
    cluster.sql("CREATE TABLE fixed (id BIGINT PRIMARY KEY); CREATE TABLE rows (id BIGINT PRIMARY KEY)")
    cluster.sql("INSERT INTO fixed VALUES " + ", ".join(f"({i})" for i in range(1000)))
    ended, acknowledged, failed = threading.Event(), [], []

    def write(first):
        number = first
        while not ended.is_set():
            try:
                cluster.sql(f"INSERT INTO rows VALUES ({number})")
                acknowledged.append(number)
            except RuntimeError as error:
                failed.append(str(error))
            number += 2

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        faults()
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    there = [int(line) for line in cluster.sql("SELECT id FROM rows").split()[1:]]
    lost, doubled = set(acknowledged) - set(there), len(there) - len(set(there))
    print(f"{len(acknowledged)} rows acknowledged, {len(lost)} lost, {doubled} doubled; {len(failed)} statements failed")
    for error in failed[:3]:
        print(error.strip())


def main():
    stoa, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    folder.mkdir()
    cluster = Cluster(stoa, folder / "together", 3, 2)

    def send(node, what):
        pid = cluster.pid(node)
        os.kill(pid, what)
        return pid

    def leaf(run):
        return f"leaf{1 + run % 2}"

    def faults():
        check = lambda: cluster.sql(CHECK)
        start = lambda _: cluster.start()
        resume = lambda pid: os.kill(pid, signal.SIGCONT)
        measure(cluster, "leaf killed", runs, lambda run: send(leaf(run), signal.SIGKILL), start, check, ANSWER)
        measure(cluster, "leaf frozen", runs, lambda run: send(leaf(run), signal.SIGSTOP), resume, check, ANSWER)
        change = lambda: cluster.sql("CREATE OR REPLACE VIEW v AS SELECT 1 AS one; SELECT one FROM v")
        measure(cluster, "leading coordinator killed, a statement that changes the catalog", runs,
                lambda _: send(leader(cluster), signal.SIGKILL), start, change, "one\n1\n")

    under_load(cluster, faults)
    cluster.stop()
    if os.geteuid():
        print("leaf cut off: not measured, network namespaces need root")
        return
    apart = Apart(stoa, folder / "apart", 2)
    try:
        under_load(apart, lambda: measure(apart, "leaf cut off", runs, lambda run: apart.cut(leaf(run)), apart.heal,
                                          lambda: apart.sql(CHECK), ANSWER))
    finally:
        apart.stop()


main()
