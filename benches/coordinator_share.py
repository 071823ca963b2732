"""What a query costs a coordinator, beside what it costs the leaves: processor time of their threads as the scheduler counts it, from /proc.

python3 benches/coordinator_share.py STOA SCRATCH [RUNS] [QUERY ...]

One coordinator and two leaves on this machine, TPC-H of scale 1, each query RUNS times (default 300) by one client, three times over.
"""
import pathlib
import shutil
import sys
import time

from cluster import Cluster


def used(pid):
    """Seconds of processor time, and switches, of the threads that there are."""
    seconds, switches = 0.0, 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
            switches += int(next(l for l in (task / "status").read_text().splitlines() if l.startswith("voluntary")).split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return seconds, switches


def main(stoa, scratch, runs, queries):
    folder = pathlib.Path(scratch) / "share"
    shutil.rmtree(folder, ignore_errors=True)
    cluster = Cluster(stoa, folder, 1, 2)
    try:
        tpch = ["tpch", "--scale", "1", "--connect", cluster.connect()]
        cluster.run(*tpch, "--runs", "1")
        pids = {node: cluster.pid(node) for node in cluster.addresses}
        before = {node: used(pid) for node, pid in pids.items()}
        time.sleep(5)
        idle = {node: (used(pid)[0] - before[node][0]) / 5 for node, pid in pids.items()}
        print("idle: " + ", ".join(f"{node} {cpu * 1e3:.1f} ms/s" for node, cpu in idle.items()))
        for number in queries * 3:
            before, began = {node: used(pid) for node, pid in pids.items()}, time.perf_counter()
            cluster.run(*tpch, "--runs", str(runs), "--queries", str(number))
            took = time.perf_counter() - began
            after = {node: used(pid) for node, pid in pids.items()}
            cpu = {node: after[node][0] - before[node][0] for node in pids}
            switches = after["coordinator1"][1] - before["coordinator1"][1]
            mine, all_of_it = cpu["coordinator1"], sum(cpu.values())
            print(f"q{number:02}: coordinator {mine / runs * 1e6:.0f} us a query, {switches / runs:.1f} switches, leaves "
                  f"{(all_of_it - mine) / runs * 1e3:.2f} ms, share {mine / all_of_it:.1%}, {took / runs * 1e3:.2f} ms a run in all",
                  flush=True)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 300, [int(n) for n in sys.argv[4:]] or [1, 6])
