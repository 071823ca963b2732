"""How fast SQLite inserts single rows from 16 threads, each commit on disk before it is acknowledged (WAL, synchronous=FULL).

python3 benches/inserts.py SCRATCH [SECONDS]: SCRATCH is a folder that is not there yet, on the disk to be measured.
The example `inserts` of stoa-bench does the same with Stoa.
"""
import bisect
import itertools
import pathlib
import sqlite3
import sys
import threading
import time

THREADS = 16
TABLE = "CREATE TABLE inserts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, note TEXT)"


def connect(path):
    # Python begins no transactions of its own: every INSERT is one.
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def insert(path, numbers, until, times):
    connection = connect(path)
    while time.perf_counter() < until:
        number = next(numbers)
        asked = time.perf_counter()
        connection.execute("INSERT INTO inserts VALUES (?, ?, ?)", (number, number * 7, f"row number {number}"))
        times.append(time.perf_counter() - asked)
    connection.close()


def measure(path, threads, seconds):
    connect(path).execute(TABLE)
    numbers, began = itertools.count(), time.perf_counter()
    times = [[] for _ in range(threads)]
    workers = [threading.Thread(target=insert, args=(path, numbers, began + seconds, own)) for own in times]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    found = sorted(itertools.chain(*times))
    p50, p90, p99 = (found[int(len(found) * share)] * 1e3 for share in (0.5, 0.9, 0.99))
    print(f"SQLite {sqlite3.sqlite_version}, INSERT of one row, {threads} threads: {len(found) / seconds:.0f}/s, p50 {p50:.2f} ms, "
          f"p90 {p90:.2f} ms, p99 {p99:.2f} ms, max {found[-1] * 1e3:.2f} ms")
    print(histogram(found))


def histogram(found):
    """How many of some latencies, which are in order, are below each power of two."""
    parts, limit, counted = [], 0.125, 0
    while counted < len(found):
        below = bisect.bisect_left(found, limit / 1e3)
        if below:
            parts.append(f"{limit:g} ms {(below - counted) / len(found) * 100:.1f} %")
        limit, counted = limit * 2, below
    return "  below " + ", ".join(parts)


def main():
    scratch = pathlib.Path(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    scratch.mkdir()
    for threads in (1, THREADS):
        measure(scratch / f"{threads}.sqlite", threads, seconds)


if __name__ == "__main__":
    main()
