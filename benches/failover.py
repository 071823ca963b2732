"""How long a cluster takes from a fault to the first right answer, and whether it loses or doubles rows.

python3 benches/failover.py STOA SCRATCH [RUNS]: STOA is the program, SCRATCH a folder that is not there yet.
A cluster of three coordinators and two leaves with REDUNDANCY 2; two clients insert numbered rows all the time.
"""
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time

CHECK = "SELECT count(*) AS n, sum(id) AS s FROM fixed"
ANSWER = "n,s\n1000,499500\n"


class Cluster:
    def __init__(self, stoa, folder):
        self.stoa, self.folder = stoa, folder
        self.run("cluster", "start", "--coordinators", "3", "--leaves", "2", "--dir", str(folder))
        os.environ["STOA_SECRET"] = json.loads((folder / "cluster.json").read_text())["secret"]
        nodes = ["coordinator1", "coordinator2", "coordinator3", "leaf1", "leaf2"]
        # A node that starts again has the address that it had.
        self.addresses = {node: (folder / f"{node}.log").read_text().split(" listening on ")[1].split()[0] for node in nodes}

    def run(self, *args):
        done = subprocess.run([self.stoa, *args], capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def address(self, node):
        return self.addresses[node]

    def connect(self):
        return ",".join(self.address(f"coordinator{i}") for i in (1, 2, 3))

    def sql(self, text):
        return self.run("sql", "--connect", self.connect(), "--format", "csv", "-c", text)

    def pid(self, node):
        lines = self.run("cluster", "status", "--dir", str(self.folder)).splitlines()
        row = next(line for line in lines if f" {node} " in line)
        return int(row.replace("│", "┆").split("┆")[3])

    def start(self):
        self.run("cluster", "start", "--dir", str(self.folder))

    def leader(self):
        rows = [row.split(",") for row in self.sql("SHOW AGGREGATORS").splitlines()]
        port = next(row[1] for row in rows if "leader" in row)
        return next(node for node in ("coordinator1", "coordinator2", "coordinator3") if self.address(node).endswith(":" + port))

    def whole(self):
        while self.sql("SHOW PARTITIONS").count(",Slave,") < 2 or self.sql("SHOW AGGREGATORS").count("online") < 3:
            time.sleep(0.05)


def measure(cluster, what, runs, fault, mend, ask, answer):
    times = []
    for run in range(runs):
        cluster.whole()
        time.sleep(0.5)
        mark = fault(run)
        began = time.perf_counter()
        assert ask() == answer, what
        times.append(time.perf_counter() - began)
        mend(mark)
    times.sort()
    print(f"{what}: {runs} runs, median {statistics.median(times):.2f} s, worst {times[-1]:.2f} s", flush=True)


def main():
    stoa, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    cluster = Cluster(stoa, folder)
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

    def send(node, what):
        pid = cluster.pid(node)
        os.kill(pid, what)
        return pid

    def leaf(run):
        return f"leaf{1 + run % 2}"

    check = lambda: cluster.sql(CHECK)
    start = lambda _: cluster.start()
    resume = lambda pid: os.kill(pid, signal.SIGCONT)
    measure(cluster, "leaf killed", runs, lambda run: send(leaf(run), signal.SIGKILL), start, check, ANSWER)
    measure(cluster, "leaf frozen", runs, lambda run: send(leaf(run), signal.SIGSTOP), resume, check, ANSWER)
    change = lambda: cluster.sql("CREATE OR REPLACE VIEW v AS SELECT 1 AS one; SELECT one FROM v")
    measure(cluster, "leading coordinator killed, a statement that changes the catalog", runs,
            lambda _: send(cluster.leader(), signal.SIGKILL), start, change, "one\n1\n")
    ended.set()
    for writer in writers:
        writer.join()
    there = [int(line) for line in cluster.sql("SELECT id FROM rows").split()[1:]]
    lost, doubled = set(acknowledged) - set(there), len(there) - len(set(there))
    print(f"{len(acknowledged)} rows acknowledged, {len(lost)} lost, {doubled} doubled; {len(failed)} statements failed")
    for error in failed[:3]:
        print(error.strip())
    cluster.run("cluster", "stop", "--dir", str(folder))


main()
