#!/usr/bin/env python3
"""TPC-H on Stoa and its peers, on one machine, in one run.

usage: peers.py --stoa BINARY --parquet FOLDER --work FOLDER [--scale 1] [--runs 3] [--engines stoa,duckdb,...] [--threads 2]

Every engine reads the same Parquet files (made by the `tpch_parquet` example of stoa-datasets), keeps the data in its own native
storage (DuckDB and Hyper: a database file; DataFusion: Arrow tables in memory; Stoa: its data directory) and runs each query once to
warm up and then RUNS times; the best time counts, until the last row is fetched. Needs: pip install duckdb datafusion pyarrow
tableauhyperapi. Prints a Markdown table.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import time

TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
HERE = pathlib.Path(__file__).resolve().parent
QUERIES = HERE.parent / "datasets" / "tpch" / "queries"


def queries():
    return [(p.stem, p.read_text().strip().rstrip(";")) for p in sorted(QUERIES.glob("q*.sql"))]


def best(run, runs):
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def stoa(args):
    data = args.work / "stoa"
    shutil.rmtree(data, ignore_errors=True)
    ddl = "".join((QUERIES.parent / "tables" / f"{table}.sql").read_text() for table in TABLES)
    base = [args.stoa, "sql", "--data", str(data), "--threads", str(args.threads)]
    subprocess.run([*base, "-c", ddl], check=True, stdout=subprocess.DEVNULL)
    start = time.perf_counter()
    for table in TABLES:
        subprocess.run([args.stoa, "load", "--data", str(data), "--threads", str(args.threads), table, str(args.parquet / f"{table}.parquet")],
                       check=True, stdout=subprocess.DEVNULL)
    load = time.perf_counter() - start
    report = args.work / "stoa.json"
    subprocess.run([args.stoa, "tpch", "--data", str(data), "--scale", str(args.scale), "--runs", str(args.runs), "--threads",
                    str(args.threads), "--json", str(report)], check=True, stdout=subprocess.DEVNULL)
    found = json.loads(report.read_text())
    return load, found["queries"], found["bytes_on_disk"]


def duckdb(args):
    import duckdb as engine
    path = args.work / "duck.db"
    path.unlink(missing_ok=True)
    connection = engine.connect(str(path))
    connection.execute(f"SET threads = {args.threads}")
    start = time.perf_counter()
    for table in TABLES:
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{args.parquet}/{table}.parquet')")
    connection.execute("CHECKPOINT")
    load = time.perf_counter() - start
    times = {name: best(lambda: connection.execute(text).to_arrow_table(), args.runs) for name, text in queries()}
    return load, times, path.stat().st_size


def datafusion(args):
    import datafusion as engine
    import pyarrow.parquet
    context = engine.SessionContext(engine.SessionConfig().with_target_partitions(args.threads))
    start = time.perf_counter()
    for table in TABLES:
        batches = pyarrow.parquet.read_table(args.parquet / f"{table}.parquet").to_batches(max_chunksize=8192)
        halves = [batches[i::args.threads] for i in range(args.threads)] if len(batches) >= args.threads else [batches]
        context.register_record_batches(table, halves)
    load = time.perf_counter() - start
    times = {name: best(lambda: context.sql(text).collect(), args.runs) for name, text in queries()}
    return load, times, None


def hyper(args):
    import tableauhyperapi as engine
    path = args.work / "hyper.hyper"
    path.unlink(missing_ok=True)
    process = engine.HyperProcess(engine.Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU, parameters={"log_config": ""})
    with process, engine.Connection(process.endpoint, str(path), engine.CreateMode.CREATE_AND_REPLACE) as connection:
        start = time.perf_counter()
        for table in TABLES:
            connection.execute_command(f"CREATE TABLE {table} AS (SELECT * FROM external('{args.parquet}/{table}.parquet'))")
        load = time.perf_counter() - start
        times = {name: best(lambda: connection.execute_list_query(text), args.runs) for name, text in queries()}
    return load, times, path.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stoa", default="target/release/stoa")
    parser.add_argument("--parquet", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default="stoa,duckdb,datafusion,hyper")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    engines = {"stoa": stoa, "duckdb": duckdb, "datafusion": datafusion, "hyper": hyper}
    found = {name: engines[name](args) for name in args.engines.split(",")}
    print("| | " + " | ".join(found) + " |")
    print("|---" * (len(found) + 1) + "|")
    for name, _ in queries():
        print(f"| {name} ms | " + " | ".join(f"{times[name] * 1e3:.1f}" for _, times, _ in found.values()) + " |")
    print("| sum s | " + " | ".join(f"{sum(times.values()):.3f}" for _, times, _ in found.values()) + " |")
    print("| load s | " + " | ".join(f"{load:.2f}" for load, _, _ in found.values()) + " |")
    print("| MB on disk | " + " | ".join("-" if size is None else f"{size / 1e6:.1f}" for _, _, size in found.values()) + " |")


if __name__ == "__main__":
    main()
