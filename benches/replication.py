"""What a second copy costs writers, and how far it is behind them.

python3 benches/replication.py STOA SCRATCH [ROUNDS [ROWS]]: STOA is the program, SCRATCH a folder that is not there yet.
One coordinator and two leaves; eight clients insert ROWS rows each, one a statement, into a database of each redundancy in turn.
"""
import pathlib
import statistics
import subprocess
import sys
import threading
import time

from cluster import Cluster

CLIENTS = 8


def insert(cluster, database, files):
    """Rows a second of all clients together."""
    command = [cluster.stoa, "sql", "--connect", cluster.connect(), "--database", database]
    began = time.perf_counter()
    clients = [subprocess.Popen(command, stdin=open(file), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for file in files]
    for client in clients:
        said = client.communicate()[1]
        assert client.returncode == 0, said
    return time.perf_counter() - began


def lags(cluster, ended, found):
    """How many records replicas lack, asked again and again."""
    while not ended.is_set():
        ends = {}
        for row in cluster.table("SHOW CLUSTER STATUS"):
            if row["Database_Name"].startswith("two_") and ":" in row["Position"]:
                ends.setdefault(row["Database_Name"], {})[row["Role"]] = int(row["Position"].split(":")[1])
        found.extend(e["Master"] - e["Slave"] for e in ends.values() if {"Master", "Slave"} <= e.keys())
        time.sleep(0.1)


def main():
    stoa, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rows = int(sys.argv[4]) if len(sys.argv) > 4 else 2000
    cluster = Cluster(stoa, folder, 1, 2)
    for redundancy, database in ((1, "one"), (2, "two")):
        cluster.sql(f"CREATE DATABASE {database} PARTITIONS 4 REDUNDANCY {redundancy}")
        cluster.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(40))", database)
    rates, found = {"one": [], "two": []}, []
    for run in range(rounds):
        for database in ("one", "two"):
            files = [folder / f"rows{client}.sql" for client in range(CLIENTS)]
            for client, file in enumerate(files):
                first = (run * CLIENTS + client) * rows
                file.write_text("".join(f"INSERT INTO t VALUES ({i}, 'a note of some length');\n" for i in range(first, first + rows)))
            ended = threading.Event()
            watch = threading.Thread(target=lags, args=(cluster, ended, found))
            # Leaves are asked in the last round alone.
            if database == "two" and run == rounds - 1:
                watch.start()
            rates[database].append(CLIENTS * rows / insert(cluster, database, files))
            ended.set()
            if watch.ident:
                watch.join()
    for database, redundancy in (("one", 1), ("two", 2)):
        some = sorted(rates[database])
        print(f"REDUNDANCY {redundancy}: {some[0]:.0f} to {some[-1]:.0f} rows/s, median {statistics.median(some):.0f}")
    ratios = sorted(two / one for one, two in zip(rates["one"], rates["two"]))
    print(f"2 against 1, round by round: {ratios[0]:.2f} to {ratios[-1]:.2f}, median {statistics.median(ratios):.2f}")
    found.sort()
    print(f"records that a replica lacks, asked {len(found)} times: median {statistics.median(found)}, worst {found[-1]}")
    for database in ("one", "two"):
        count = cluster.sql("SELECT count(*) AS n, count(DISTINCT id) AS d FROM t", database).split()[1]
        assert count == f"{rounds * CLIENTS * rows},{rounds * CLIENTS * rows}", count
    cluster.stop()


main()
