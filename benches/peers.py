#!/usr/bin/env python3
"""TPC-H on Stoa and its peers, on one machine, in one run.

usage: peers.py --parquet FOLDER --work FOLDER [--stoa target/release/stoa] [--scale 1] [--rounds 2] [--runs 3] [--threads 2]
                [--json FILE] [--engines stoa,duckdb,datafusion,hyper,chdb]

Every engine reads the same Parquet files (made by the `tpch_parquet` example of stoa-datasets) and keeps the data in storage of its
own: Stoa a data directory, DuckDB and Hyper a database file, chDB MergeTree tables ordered by their primary keys, DataFusion Arrow
tables in memory (`datafusion-parquet` reads the files instead). All load first. Then there are ROUNDS rounds in which the engines take
turns, each time another one first: an engine runs each query once to warm up and RUNS times for the clock, until the last row is
there. The best counts. Prints a Markdown table; in brackets, how many times Stoa's time a peer takes. Engines that are not installed
are left out: pip install duckdb datafusion pyarrow tableauhyperapi chdb
"""

import argparse
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import time

TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
TPCH = pathlib.Path(__file__).resolve().parent.parent / "datasets" / "tpch"
QUERIES = [(path.stem, path.read_text().strip().rstrip(";")) for path in sorted((TPCH / "queries").glob("q*.sql"))]
KEYS = {"region": "r_regionkey", "nation": "n_nationkey", "supplier": "s_suppkey", "customer": "c_custkey", "part": "p_partkey",
        "partsupp": "ps_partkey, ps_suppkey", "orders": "o_orderkey", "lineitem": "l_orderkey, l_linenumber"}


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Engine:
    """`load` makes the tables; `query` runs one query and fetches all of its rows; `size` is what the tables take on disk."""

    module = None
    size = None

    def __init__(self, args):
        self.args = args

    def round(self):
        """Seconds by query; `None` where the engine refuses it."""
        times = {}
        for name, text in QUERIES:
            try:
                self.query(text)
                times[name] = min(self.time(text) for _ in range(self.args.runs))
            except Exception as error:  # Each engine has errors of its own; one that refuses a query still runs the others.
                print(f"{self.module}: {name}: {str(error)[:300]}", file=sys.stderr)
                times[name] = None
        return times

    def time(self, text):
        start = time.perf_counter()
        self.query(text)
        return time.perf_counter() - start

    def file(self, table):
        return f"{self.args.parquet.resolve()}/{table}.parquet"

    def fresh(self, name):
        path = self.args.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path

    def close(self):
        pass


class Stoa(Engine):
    """A process a round, which warms up and takes its times itself, and checks the answers."""

    def call(self, *arguments):
        options = ["--data", str(self.data), "--threads", str(self.args.threads)]
        subprocess.run([self.args.stoa, arguments[0], *options, *arguments[1:]], check=True, stdout=subprocess.DEVNULL)

    def load(self):
        self.data = self.fresh("stoa")
        for table in TABLES:
            self.call("sql", "-f", str(TPCH / "tables" / f"{table}.sql"))
        start = time.perf_counter()
        for table in TABLES:
            self.call("load", table, self.file(table))
        seconds = time.perf_counter() - start
        self.size = folder_size(self.data)
        return seconds

    def round(self):
        report = self.args.work / "stoa.json"
        self.call("tpch", "--scale", str(self.args.scale), "--runs", str(self.args.runs), "--json", str(report))
        return json.loads(report.read_text())["queries"]


class DuckDB(Engine):
    module = "duckdb"

    def load(self):
        import duckdb
        self.connection = duckdb.connect(str(self.fresh("duck.db")))
        self.connection.execute(f"SET threads = {self.args.threads}")
        start = time.perf_counter()
        for table in TABLES:
            self.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{self.file(table)}')")
        self.connection.execute("CHECKPOINT")
        seconds = time.perf_counter() - start
        # Its file has blocks that are free again; they do not count.
        used = "SELECT block_size * used_blocks FROM pragma_database_size()"
        self.size = self.connection.execute(used).fetchall()[0][0]
        return seconds

    def query(self, text):
        self.connection.sql(text).to_arrow_table()

    def close(self):
        self.connection.close()


class DataFusion(Engine):
    module = "datafusion"

    def load(self):
        import datafusion
        import pyarrow.parquet
        self.context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(self.args.threads))
        start = time.perf_counter()
        for table in TABLES:
            batches = pyarrow.parquet.read_table(self.file(table)).to_batches(max_chunksize=8192)
            parts = [part for part in (batches[i::self.args.threads] for i in range(self.args.threads)) if part]
            self.context.register_record_batches(table, parts)
        return time.perf_counter() - start

    def query(self, text):
        self.context.sql(text).collect()


class DataFusionParquet(DataFusion):
    def load(self):
        import datafusion
        self.context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(self.args.threads))
        for table in TABLES:
            self.context.register_parquet(table, self.file(table))
        return 0.0


class Hyper(Engine):
    """Its worker threads are one a core."""

    module = "tableauhyperapi"

    def load(self):
        import tableauhyperapi as hyper
        path = self.fresh("hyper.hyper")
        self.process = hyper.HyperProcess(hyper.Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU, parameters={"log_config": ""})
        self.connection = hyper.Connection(self.process.endpoint, str(path), hyper.CreateMode.CREATE_AND_REPLACE)
        start = time.perf_counter()
        for table in TABLES:
            self.connection.execute_command(f"CREATE TABLE {table} AS (SELECT * FROM external('{self.file(table)}'))")
        seconds = time.perf_counter() - start
        self.size = path.stat().st_size
        return seconds

    def query(self, text):
        self.connection.execute_list_query(text)

    def close(self):
        self.connection.close()
        self.process.close()


class ChDB(Engine):
    module = "chdb"

    def load(self):
        from chdb import session
        path = self.fresh("chdb")
        self.session = session.Session(str(path))
        self.session.query(f"SET max_threads = {self.args.threads}")
        # Columns are not NULL in the files, so that the tables need not allow it.
        self.session.query("SET schema_inference_make_columns_nullable = 'auto'")
        self.session.query("CREATE DATABASE tpch ENGINE = Atomic")
        self.session.query("USE tpch")
        start = time.perf_counter()
        for table in TABLES:
            source = f"SELECT * FROM file('{self.file(table)}', Parquet)"
            self.session.query(f"CREATE TABLE {table} ENGINE = MergeTree ORDER BY ({KEYS[table]}) AS {source}")
        seconds = time.perf_counter() - start
        # Lest merges in the background disturb the others; they are no part of the load.
        for table in TABLES:
            self.session.query(f"OPTIMIZE TABLE {table} FINAL")
        parts = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'tpch'"
        self.size = int(self.session.query(parts, "CSV").bytes())
        return seconds

    def query(self, text):
        self.session.query(text, "ArrowStream").bytes()

    def close(self):
        self.session.close()


ENGINES = {"stoa": Stoa, "duckdb": DuckDB, "datafusion": DataFusion, "datafusion-parquet": DataFusionParquet, "hyper": Hyper,
           "chdb": ChDB}


def measure(args):
    """Times by engine and query; `None` where an engine refuses the query. Loads and sizes by engine."""
    engines = {}
    for name in args.engines.split(","):
        if ENGINES[name].module and not importlib.util.find_spec(ENGINES[name].module):
            print(f"{name} is not installed", file=sys.stderr)
            continue
        engines[name] = ENGINES[name](args)
    loads = {}
    for name, engine in engines.items():
        print(f"loading {name}", file=sys.stderr)
        loads[name] = engine.load()
    rounds = {name: [] for name in engines}
    for number in range(args.rounds):
        order = list(engines)
        first = number % len(order)
        for name in order[first:] + order[:first]:
            print(f"round {number + 1}: {name}", file=sys.stderr)
            rounds[name].append(engines[name].round())
    times = {name: {query: least(found[query] for found in all_of) for query, _ in QUERIES} for name, all_of in rounds.items()}
    sizes = {name: engine.size for name, engine in engines.items()}
    for engine in engines.values():
        engine.close()
    return times, loads, sizes


def least(values):
    return min((value for value in values if value is not None), default=None)


def report(times, loads, sizes):
    base = times.get("stoa", {})

    def row(label, values, digits, stoa):
        cells = []
        for name, value in values.items():
            cell = "-" if value is None else f"{value:.{digits}f}"
            cells.append(f"{cell} ({value / stoa:.1f})" if value and stoa and name != "stoa" else cell)
        print(f"| {label} | " + " | ".join(cells) + " |")

    print("| | " + " | ".join(times) + " |")
    print("|---" * (len(times) + 1) + "|")
    for query, _ in QUERIES:
        found = {name: value[query] and value[query] * 1e3 for name, value in times.items()}
        row(f"{query} ms", found, 1, found.get("stoa"))
    sums = {name: None if None in value.values() else sum(value.values()) for name, value in times.items()}
    row("sum s", sums, 3, sums.get("stoa"))
    row("load s", loads, 2, loads.get("stoa"))
    row("MB on disk", {name: size and size / 1e6 for name, size in sizes.items()}, 1, None)
    for name, value in times.items():
        if base and name != "stoa":
            faster = [query for query, seconds in value.items() if seconds and base[query] and seconds < base[query]]
            refused = sum(seconds is None for seconds in value.values())
            but = f", of the {len(value) - refused} that it ran" if refused else ""
            print(f"\nFaster than Stoa is {name} on {', '.join(faster) or 'no query'}{but}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stoa", default="target/release/stoa")
    parser.add_argument("--parquet", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default="stoa,duckdb,datafusion,hyper,chdb")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    times, loads, sizes = measure(args)
    report(times, loads, sizes)
    if args.json:
        args.json.write_text(json.dumps({"times": times, "loads": loads, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
