#!/usr/bin/env python3
"""Random queries on Stoa and on DuckDB: both must give the same rows.

usage: differential.py --stoa BINARY [--seed 1] [--rounds 20] [--queries 100] [--out FOLDER] [--corpus FILE.slt]

Each round makes tables (NULLs, skew, empty tables, strings, decimals, dates; random shard and sort keys) and then queries: joins of
every kind, three-valued filters, grouping sets, DISTINCT aggregates, subqueries, set operations, ORDER BY with LIMIT. The round's
number is its seed, so a failure is found again with `--seed N --rounds 1`. Every round runs Stoa with other STOA_* settings.
A query that DuckDB rejects is left out; a query that Stoa rejects counts unless docs/sql.md says that it is not supported.
`--corpus` writes the queries of one round with DuckDB's answers as a sqllogictest file (cli/tests/slt/random.slt was made so, with
`--seed 4 --queries 900 --small`). Needs: pip install duckdb.
"""

import argparse
import datetime
import decimal
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import duckdb

TYPES = {"int": ["INT", "SMALLINT", "BIGINT", "TINYINT", "INT UNSIGNED"], "dec": ["DECIMAL(9,2)", "DECIMAL(18,4)", "DECIMAL(5,1)", "DECIMAL(20,3)"],
         "str": ["VARCHAR(30)", "TEXT"], "date": ["DATE"], "bool": ["BOOLEAN"], "dbl": ["DOUBLE"], "ts": ["TIMESTAMP"]}
WORDS = ["", "a", "b", "ab", "abc", "Abc", "ABC", "b%", "a_c", "é", "naïve", "日本", "zebra", "it''s", "x y", "aaa", "aab", "longer than twelve",
         "longer than twelv", "longer than twelve!", "0", "10", "9"]
UNSUPPORTED = ["not supported"]


def day(rng):
    return f"'{1992 + rng.randrange(8)}-{1 + rng.randrange(12):02}-{1 + rng.randrange(28):02}'"


def literal(rng, kind):
    if kind == "int":
        return str(rng.choice([0, 1, 2, 3, 5, 7, 10, 40, 100]))
    if kind == "dec":
        return rng.choice(["0.5", "1.00", "12.3", "99.99", "0.1", "3.25"])
    if kind == "str":
        return "'" + rng.choice(WORDS) + "'"
    if kind == "date":
        return "DATE " + day(rng)
    if kind == "ts":
        return f"TIMESTAMP '2020-01-{1 + rng.randrange(28):02} {rng.randrange(24):02}:00:00'"
    if kind == "bool":
        return rng.choice(["TRUE", "FALSE"])
    return rng.choice(["0.25e0", "1.5e0", "2e0", "1e1"])


def value(rng, kind, declared, skew):
    if kind == "int":
        small = declared == "TINYINT"
        base = rng.randrange(4) if rng.random() < skew else rng.randrange(100 if small else 1000)
        return str(base if declared.endswith("UNSIGNED") or rng.random() < 0.7 else -base)
    if kind == "dec":
        scale = int(declared[:-1].split(",")[1])
        high = 3 if rng.random() < skew else 1000
        return f"{decimal.Decimal(rng.randrange(-high * 10**scale // 3, high * 10**scale)).scaleb(-scale):f}"
    if kind == "str":
        if rng.random() < skew:
            return "'" + rng.choice(WORDS[:8]) + "'"
        return "'" + rng.choice(WORDS) + (str(rng.randrange(50)) if rng.random() < 0.3 else "") + "'"
    if kind == "date":
        return day(rng)
    if kind == "ts":
        return f"'2020-01-{1 + rng.randrange(28):02} {rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}'"
    if kind == "bool":
        return rng.choice(["TRUE", "FALSE"])
    return f"{rng.randrange(-40, 400) / 4}"


class Table:
    """A table: its columns, its statements for Stoa and for DuckDB."""

    def __init__(self, rng, name, small):
        self.name = name
        kinds = ["int", "int", "str", "dec", "date"] + rng.sample(["bool", "dbl", "ts", "dec", "str", "int"], rng.randrange(1, 4))
        self.columns = [(f"c{i}", kind, rng.choice(TYPES[kind])) for i, kind in enumerate(kinds)]
        self.rows = rng.choice([0, 1, 9, 12, 30, 30] if small else [0, 1, 5, 40, 40, 150, 150, 600])
        ddl = ", ".join(f"{c} {t}" for c, _, t in self.columns)
        keys = ""
        for key, often in (("SHARD KEY", 0.7), ("SORT KEY", 0.5)):
            if rng.random() < often:
                keys += f", {key} ({', '.join(c for c, _, _ in rng.sample(self.columns, rng.choice([1, 1, 2])))})"
        self.reference = rng.random() < 0.15
        if self.reference:
            keys = re.sub(r", SHARD KEY \([^)]*\)", "", keys)
        word = "REFERENCE TABLE" if self.reference else "TABLE"
        self.stoa = [f"CREATE {word} {name} ({ddl}{keys})"]
        self.duckdb = [f"CREATE TABLE {name} ({ddl.replace('INT UNSIGNED', 'UINTEGER')})"]
        nulls = [rng.choice([0, 0, 0.1, 0.4, 1 if rng.random() < 0.1 else 0.2]) for _ in self.columns]
        skews = [rng.choice([0, 0.5, 0.9]) for _ in self.columns]
        left = self.rows
        while left:
            count = min(left, rng.choice([1, 7, 100, 1000]))
            left -= count
            rows = [", ".join("NULL" if rng.random() < nulls[i] else value(rng, k, t, skews[i]) for i, (_, k, t) in enumerate(self.columns))
                    for _ in range(count)]
            insert = f"INSERT INTO {name} VALUES " + ", ".join(f"({r})" for r in rows)
            self.stoa.append(insert)
            self.duckdb.append(insert)


class Queries:
    """Makes queries over tables; a scope is a list of (column, kind)."""

    def __init__(self, rng, tables):
        self.rng = rng
        self.tables = tables
        self.names = 0

    def name(self, prefix):
        self.names += 1
        return f"{prefix}{self.names}"

    def chance(self, p):
        return self.rng.random() < p

    def column(self, scope, kind):
        found = [c for c, k in scope if k == kind]
        return self.rng.choice(found) if found else literal(self.rng, kind)

    def kind(self, scope):
        return self.rng.choice([k for _, k in scope])

    # -- expressions

    def expression(self, scope, kind, depth=2):
        rng = self.rng
        if depth == 0 or self.chance(0.45):
            return self.column(scope, kind) if self.chance(0.85) else (literal(rng, kind) if self.chance(0.95) else "NULL")
        if self.chance(0.2):
            a, b = self.expression(scope, kind, depth - 1), self.expression(scope, kind, depth - 1)
            pick = rng.randrange(4)
            if pick == 0:
                return f"coalesce({a}, {b}, {literal(rng, kind)})"
            if pick == 1:
                return f"nullif({a}, {self.column(scope, kind)})"
            if pick == 2:
                return f"CASE WHEN {self.predicate(scope, 1)} THEN {a} WHEN {self.predicate(scope, 1)} THEN {b} END"
            return f"CASE {self.column(scope, kind)} WHEN {literal(rng, kind)} THEN {a} ELSE {self.column(scope, kind)} END"
        sub = lambda k: self.expression(scope, k, depth - 1)
        if kind == "int":
            return rng.choice([lambda: f"({sub('int')} + {literal(rng, 'int')})", lambda: f"({sub('int')} - {self.column(scope, 'int')})",
                               lambda: f"({sub('int')} * {literal(rng, 'int')})", lambda: f"({sub('int')} / {rng.choice([1, 2, 3, 7, -4])})",
                               lambda: f"({sub('int')} % {rng.choice([1, 2, 3, 7, 10])})", lambda: f"length({sub('str')})",
                               lambda: f"abs({sub('int')})", lambda: f"extract(year FROM {sub('date')})",
                               lambda: f"extract(month FROM {sub('date')})", lambda: f"({sub('date')} - {self.column(scope, 'date')})",
                               lambda: f"(0 - {self.column(scope, 'int')})", lambda: f"CAST({sub('bool')} AS INT)",
                               lambda: f"strpos({sub('str')}, {literal(rng, 'str')})"])()
        if kind == "dec":
            return rng.choice([lambda: f"({sub('dec')} + {self.column(scope, 'dec')})", lambda: f"({self.column(scope, 'dec')} * {literal(rng, 'dec')})",
                               lambda: f"({sub('dec')} - {literal(rng, 'dec')})", lambda: f"({self.column(scope, 'dec')} * (1 - {literal(rng, 'dec')}))",
                               lambda: f"abs({self.column(scope, 'dec')})", lambda: f"(- {self.column(scope, 'dec')})",
                               lambda: f"CAST({self.column(scope, 'int')} AS DECIMAL(12,2))", lambda: f"({self.column(scope, 'dec')} + {self.column(scope, 'int')})"])()
        if kind == "str":
            return rng.choice([lambda: f"({sub('str')} || {literal(rng, 'str')})", lambda: f"upper({sub('str')})", lambda: f"lower({sub('str')})",
                               lambda: f"substring({sub('str')}, {rng.randrange(1, 4)}, {rng.randrange(0, 4)})", lambda: f"replace({sub('str')}, 'a', 'zz')",
                               lambda: f"CAST({self.column(scope, 'int')} AS VARCHAR)", lambda: f"trim({sub('str')})",
                               lambda: f"CAST({self.column(scope, 'date')} AS VARCHAR)", lambda: f"concat({sub('str')}, '-', {self.column(scope, 'str')})",
                               lambda: f"left({sub('str')}, 2)"])()
        if kind == "date":
            return rng.choice([lambda: f"CAST({sub('date')} + INTERVAL '{rng.randrange(1, 40)}' DAY AS DATE)",
                               lambda: f"CAST({sub('date')} - INTERVAL '{rng.randrange(1, 14)}' MONTH AS DATE)", lambda: f"({self.column(scope, 'date')} + 3)",
                               lambda: f"CAST(date_trunc('month', {self.column(scope, 'date')}) AS DATE)"])()
        if kind == "bool":
            return f"({self.predicate(scope, depth - 1)})"
        if kind == "dbl":
            return rng.choice([lambda: f"({self.column(scope, 'dbl')} * 2e0)", lambda: f"({self.column(scope, 'dbl')} + {self.column(scope, 'int')})",
                               lambda: f"CAST({self.column(scope, 'int')} AS DOUBLE)"])()
        return self.column(scope, kind)

    def comparison(self, scope):
        rng = self.rng
        kind = self.kind(scope)
        if kind == "bool":
            return rng.choice([self.column(scope, "bool"), f"{self.column(scope, 'bool')} IS TRUE", f"{self.column(scope, 'bool')} IS NOT FALSE",
                               f"{self.column(scope, 'bool')} IS NULL"])
        a = self.expression(scope, kind, 1)
        b = literal(rng, kind) if self.chance(0.6) else self.expression(scope, kind, 1)
        pick = rng.randrange(14)
        if pick < 6:
            return f"{a} {rng.choice(['=', '<>', '<', '<=', '>', '>='])} {b}"
        if pick == 6:
            return f"{a} {rng.choice(['', 'NOT '])}BETWEEN {b} AND {self.expression(scope, kind, 1)}"
        if pick in (7, 8):
            items = [literal(rng, kind) for _ in range(rng.randrange(1, 6))] + (["NULL"] if self.chance(0.15) else [])
            return f"{a} {rng.choice(['', 'NOT '])}IN ({', '.join(items)})"
        if pick == 9:
            return f"{a} IS {rng.choice(['', 'NOT '])}NULL"
        if pick == 10:
            return f"{a} IS {rng.choice(['', 'NOT '])}DISTINCT FROM {b}"
        text = self.expression(scope, "str", 1)
        pattern = rng.choice(["a%", "%a", "%b%", "_b%", "abc", "%", "", "a%c", "%longer%twelve%", "%é%", "__", "A%"])
        return f"{text} {rng.choice(['', 'NOT '])}{rng.choice(['LIKE', 'LIKE', 'ILIKE'])} '{pattern}'"

    def predicate(self, scope, depth=2, subqueries=False):
        if subqueries and self.chance(0.2):
            return self.subquery_predicate(scope)
        if depth == 0 or self.chance(0.4):
            return self.comparison(scope)
        a, b = self.predicate(scope, depth - 1, subqueries), self.predicate(scope, depth - 1, subqueries)
        return self.rng.choice([f"({a} AND {b})", f"({a} OR {b})", f"NOT ({a})", f"(({a}) AND ({b}))"])

    def subquery_predicate(self, scope):
        rng = self.rng
        table = rng.choice(self.tables)
        alias = self.name("s")
        inner = [(f"{alias}.{c}", k) for c, k, _ in table.columns]
        kind = rng.choice([k for _, k in scope if any(k == other for _, other in inner)] or ["int"])
        where = self.predicate(inner, 1)
        link = f"{self.column(inner, kind)} = {self.column(scope, kind)}"
        pick = rng.randrange(7)
        if pick == 6:
            value = self.column(inner, "int")
            return f"{self.expression(scope, 'int', 1)} {rng.choice(['<', '>', '=', '<='])} (SELECT {value} FROM {table.name} {alias} WHERE {link} AND {where} ORDER BY {value} LIMIT 1)"
        if pick == 0:
            return f"{self.column(scope, kind)} IN (SELECT {self.column(inner, kind)} FROM {table.name} {alias} WHERE {where})"
        if pick == 1:
            return f"{self.column(scope, kind)} NOT IN (SELECT {self.column(inner, kind)} FROM {table.name} {alias} WHERE {where})"
        if pick == 2:
            extra = f" AND {self.column(inner, 'int')} <> {self.column(scope, 'int')}" if self.chance(0.3) else ""
            return f"EXISTS (SELECT 1 FROM {table.name} {alias} WHERE {link} AND {where}{extra})"
        if pick == 3:
            return f"NOT EXISTS (SELECT * FROM {table.name} {alias} WHERE {link} AND {where})"
        if pick == 4:
            return f"{self.expression(scope, 'int', 1)} {rng.choice(['<', '>', '=', '<='])} (SELECT {rng.choice(['max', 'min', 'count'])}({self.column(inner, 'int')}) FROM {table.name} {alias} WHERE {link})"
        return f"{self.column(scope, 'dec')} > (SELECT avg({self.column(inner, 'dec')}) FROM {table.name} {alias} WHERE {where})"

    # -- FROM

    def relation(self, depth, ctes):
        if ctes and self.chance(0.4):
            name, scope = self.rng.choice(ctes)
            alias = self.name("t")
            return f"{name} {alias}", [(f"{alias}.{c}", k) for c, k in scope], 200
        if depth > 0 and self.chance(0.2):
            alias = self.name("q")
            sql, kinds = self.query(depth - 1, ctes)
            return f"({sql}) {alias}", [(f"{alias}.x{i}", k) for i, k in enumerate(kinds)], 200
        table = self.rng.choice(self.tables)
        alias = self.name("t")
        return f"{table.name} {alias}", [(f"{alias}.{c}", k) for c, k, _ in table.columns], table.rows

    def sources(self, depth, ctes):
        rng = self.rng
        text, scope, rows = self.relation(depth, ctes)
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
            other, columns, more = self.relation(depth, ctes)
            kind = rng.choice(["JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"])
            if kind == "CROSS JOIN" and rows * more > 3000:
                kind = "JOIN"
            if kind == "CROSS JOIN":
                text += f" CROSS JOIN {other}"
                rows *= max(more, 1)
                scope = scope + columns
                continue
            shared = [k for _, k in scope if k in ("int", "str", "date", "dec", "bool") and any(k == o for _, o in columns)] or ["int"]
            ons = [f"{self.column(scope, k)} = {self.column(columns, k)}" for k in rng.sample(shared, min(len(shared), rng.choice([1, 1, 2])))]
            if self.chance(0.3):
                ons.append(self.predicate(scope + columns, 1))
            if self.chance(0.1):
                ons.append(self.predicate(columns if self.chance(0.5) else scope, 1))
            if kind in ("JOIN", "LEFT JOIN") and rows * more < 3000 and self.chance(0.1):
                ons = [self.predicate(scope + columns, 1)]
            if self.chance(0.1):
                ons.append(self.subquery_predicate(columns if self.chance(0.5) else scope))
            rng.shuffle(ons)
            text += f" {kind} {other} ON {' AND '.join(ons)}"
            rows = max(rows, more) * 3
            if kind not in ("LEFT SEMI JOIN", "LEFT ANTI JOIN"):
                scope = scope + columns
        return text, scope

    # -- queries

    def aggregate(self, scope):
        rng = self.rng
        kind = rng.choice(["int", "dec", "int", "dec", "str", "date", "bool", "dbl"])
        x = self.expression(scope, kind, 1)
        distinct = "DISTINCT " if self.chance(0.2) else ""
        where = f" FILTER (WHERE {self.predicate(scope, 1)})" if self.chance(0.15) else ""
        pick = rng.randrange(10)
        if pick == 9 and self.chance(0.3):
            return f"sum(CASE WHEN {self.subquery_predicate(scope)} THEN 1 ELSE 0 END)", "int"
        if pick < 2:
            return f"count(*){where}", "int"
        if pick < 4:
            return f"count({distinct}{x}){where}", "int"
        if pick < 6:
            return f"{rng.choice(['min', 'max'])}({x}){where}", kind
        if kind in ("int", "dec"):
            return (f"sum({distinct}{x}){where}", kind) if self.chance(0.6) else (f"avg({distinct}{x}){where}", "avg")
        if kind == "bool":
            return f"{rng.choice(['bool_and', 'bool_or'])}({x}){where}", "bool"
        if kind == "dbl":
            return f"sum({self.column(scope, 'dbl')}){where}", "dbl"
        return f"count(DISTINCT {x}){where}", "int"

    def grouped(self, text, scope, where):
        rng = self.rng
        # A position in the output stands for an expression, so keys are columns or expressions that are no plain literal.
        keys = []
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            kind = self.kind(scope)
            if kind != "dbl":
                found = self.column(scope, kind) if self.chance(0.7) else self.expression(scope, kind, 1)
                if re.search(r"[a-z]\d+\.", found) and found not in [k for k, _ in keys]:
                    keys.append((found, kind))
        aggregates = [self.aggregate(scope) for _ in range(rng.randrange(0 if keys else 1, 4))]
        outputs = keys + aggregates
        group = ", ".join(k for k, _ in keys)
        if keys and self.chance(0.25) and all(re.fullmatch(r"[a-z]+\d+\.\w+", k) for k, _ in keys):
            form = rng.randrange(3)
            names = [k for k, _ in keys]
            if form == 2:
                sets = [rng.sample(names, rng.randrange(0, len(names) + 1)) for _ in range(rng.randrange(1, 4))]
                group = "GROUPING SETS (" + ", ".join("(" + ", ".join(s) + ")" for s in sets) + ", (" + ", ".join(names) + "))"
            else:
                group = f"{['ROLLUP', 'CUBE'][form]} ({group})"
        having = f" HAVING {rng.choice([f'count(*) > {rng.randrange(4)}', f'{self.aggregate(scope)[0]} IS NOT NULL'])}" if self.chance(0.2) else ""
        rng.shuffle(outputs)
        items = ", ".join(f"{e} AS x{i}" for i, (e, _) in enumerate(outputs))
        sql = f"SELECT {items} FROM {text}{where}" + (f" GROUP BY {group}" if keys else "") + having
        return sql, [k for _, k in outputs]

    def select(self, depth, ctes):
        text, scope = self.sources(depth, ctes)
        where = f" WHERE {self.predicate(scope, 2, subqueries=True)}" if self.chance(0.7) else ""
        if self.chance(0.4):
            return self.grouped(text, scope, where)
        kinds = [self.kind(scope) for _ in range(self.rng.randrange(1, 5))]
        items = ", ".join(f"{self.expression(scope, k)} AS x{i}" for i, k in enumerate(kinds))
        distinct = "DISTINCT " if self.chance(0.25) else ""
        return f"SELECT {distinct}{items} FROM {text}{where}", kinds

    def set_operation(self, depth, ctes):
        text, scope = self.sources(0, ctes)
        kinds = [self.kind(scope) for _ in range(self.rng.randrange(1, 3))]
        parts = []
        for i in range(self.rng.choice([2, 2, 3])):
            if i:
                text, scope = self.sources(0, ctes)
            items = ", ".join(f"{self.column(scope, k)} AS x{j}" for j, k in enumerate(kinds))
            where = f" WHERE {self.predicate(scope, 1)}" if self.chance(0.6) else ""
            parts.append(f"SELECT {items} FROM {text}{where}")
        sql = parts[0]
        for part in parts[1:]:
            sql += f" {self.rng.choice(['UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT', 'INTERSECT ALL', 'EXCEPT ALL'])} {part}"
        return sql, kinds

    def query(self, depth, ctes):
        sql, kinds = self.set_operation(depth, ctes) if self.chance(0.15) else self.select(depth, ctes)
        # A LIMIT is only the same everywhere below a total order: all columns, none of them a sum of doubles.
        if self.chance(0.2) and "dbl" not in kinds and "avg" not in kinds:
            order = list(range(1, len(kinds) + 1))
            self.rng.shuffle(order)
            terms = [f"{i}{self.rng.choice(['', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST'])}" for i in order]
            limit = f" LIMIT {self.rng.choice([0, 1, 3, 10, 100])}" + (f" OFFSET {self.rng.choice([0, 1, 5, 200])}" if self.chance(0.4) else "")
            sql += f" ORDER BY {', '.join(terms)}{limit}"
        return sql, ["dbl" if k == "avg" else k for k in kinds]

    def top(self):
        ctes = []
        text = ""
        if self.chance(0.15):
            for _ in range(self.rng.choice([1, 2])):
                sql, kinds = self.query(0, ctes)
                name = self.name("w")
                text += (", " if text else "WITH ") + f"{name} AS ({sql})"
                ctes.append((name, [(f"x{i}", k) for i, k in enumerate(kinds)]))
        return (text + " " if text else "") + self.query(2, ctes)[0]


# -- running and comparing

def for_duckdb(sql):
    return sql.replace("LEFT SEMI JOIN", "SEMI JOIN").replace("LEFT ANTI JOIN", "ANTI JOIN")


def duckdb_rows(connection, sql):
    import threading
    timer = threading.Timer(10, connection.interrupt)
    timer.start()
    try:
        cursor = connection.execute(for_duckdb(sql))
        return cursor.fetchall()
    finally:
        timer.cancel()


UNESCAPE = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def stoa_rows(text):
    """The rows of a TSV result without its header; None is NULL."""
    field = lambda f: None if f == "\\N" else re.sub(r"\\[tnr\\]", lambda m: UNESCAPE[m.group()], f)
    return [[field(f) for f in line.split("\t")] for line in text.split("\n")[1:-1]]


def number(cell):
    """An exact value of what both print for a number."""
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        return decimal.Decimal(str(cell))
    except decimal.InvalidOperation:
        return None


def key(row, text):
    """Sorts rows; `text` says which columns hold strings."""
    cells = []
    for i, cell in enumerate(row):
        n = None if i in text else number(cell)
        cells.append("~" if cell is None else f"{float(n):.6e}" if n is not None and n.is_finite() else str(cell))
    return cells


def same_cell(ours, theirs):
    if ours is None or theirs is None:
        return ours is None and theirs is None
    if isinstance(theirs, bool):
        return ours == ("true" if theirs else "false")
    if isinstance(theirs, (int, decimal.Decimal)):
        n = number(ours)
        return n is not None and n == theirs
    if isinstance(theirs, float):
        n = number(ours)
        return n is not None and (math.isclose(float(n), theirs, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(theirs) and n.is_nan()))
    if isinstance(theirs, datetime.datetime):
        return ours.replace("T", " ") == theirs.isoformat(sep=" ")
    return ours == str(theirs)


def paired(ours, theirs):
    text = {i for row in theirs for i, cell in enumerate(row) if isinstance(cell, str)}
    return zip(sorted(ours, key=lambda r: key(r, text)), sorted(theirs, key=lambda r: key(r, text)))


def same_rows(ours, theirs):
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB has {len(theirs)}"
    for a, b in paired(ours, theirs):
        if len(a) != len(b) or not all(same_cell(x, y) for x, y in zip(a, b)):
            return f"row {a}, DuckDB has {[None if c is None else str(c) for c in b]}"
    return None


SETTINGS = [{}, {"STOA_VECTOR_SIZE": "2", "STOA_SEGMENT_ROWS": "64"}, {"STOA_HASH_ZERO": "1", "STOA_SERIALIZE_STATES": "1", "STOA_PARTITIONS": "5"},
            {"STOA_NO_FAST_PATHS": "1", "STOA_PARTITIONS": "1"}, {"STOA_SEGMENT_ROWS": "1", "STOA_PARTITIONS": "3"}, {"STOA_PARTITIONS": "16"},
            {"STOA_SEGMENT_ROWS": "100", "STOA_VECTOR_SIZE": "7"}, {"STOA_ISA": "scalar", "STOA_PARTITIONS": "2"}]


class Stoa:
    """Runs lists of queries in one process each, and goes on behind an error."""

    def __init__(self, binary, folder, settings):
        self.base = [binary, "sql", "--data", str(folder), "--format", "tsv", "--threads", "2", "--memory-limit", "2GiB", "-f", "-"]
        self.environment = {**os.environ, **settings}

    def run(self, sql):
        try:
            done = subprocess.run(self.base, input=sql.encode(), env=self.environment, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "", "error: TIMEOUT"
        return done.stdout.decode(), done.stderr.decode()

    def setup(self, statements):
        _, error = self.run(";\n".join(statements))
        if error:
            sys.exit(f"the tables cannot be made: {error}")

    def answers(self, queries):
        """For each query its rows or its error text."""
        answers = []
        at = 0
        size = 40
        while at < len(queries):
            batch = queries[at:at + size]
            marked = "".join(f"SELECT '@@@' AS marker;\n{q};\n" for q in batch) + "SELECT '@@@' AS marker;\n"
            out, error = self.run(marked)
            parts = out.split("marker\n@@@\n")[1:]
            done = len(parts) - 1
            answers += [stoa_rows(p) for p in parts[:-1]]
            if error and not parts and size > 1:
                size = 1   # an error of parsing stops the whole text
                continue
            size = 40
            at += max(done, 0)
            if error:
                answers.append(error.strip())
                at += 1
        return answers


def float_text(v):
    """As sqllogictest.rs prints a DOUBLE."""
    if v == 0 or not math.isfinite(v):
        return "0" if v == 0 else {math.inf: "inf", -math.inf: "-inf"}.get(v, "NaN")
    digits = max(0, min(17, 8 - math.floor(math.log10(abs(v)))))
    text = f"{v:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def slt_rows(ours, theirs):
    """Stoa's rows, found equal to DuckDB's, as lines of a sqllogictest file."""
    lines = []
    for a, b in paired(ours, theirs):
        cells = ["NULL" if x is None else float_text(float(x)) if isinstance(y, float) else x.replace("T", " ") if isinstance(y, datetime.datetime)
                 else x or "(empty)" for x, y in zip(a, b)]
        lines.append(cells)
    return "\n".join(" ".join(c) for c in sorted(lines))


def write_corpus(path, arguments, tables, queries):
    out = [f"# Random queries and DuckDB's answers, made by benches/differential.py --seed {arguments.seed} --queries {arguments.queries} --small --corpus.\n"
           "# Do not edit: make it again."]
    out += [f"statement ok\n{s}" for t in tables for s in t.stoa]
    empty = 0
    for sql, ours, theirs in queries:
        empty += not theirs
        if len(theirs) <= 20 and len(sql) < 900 and (theirs or empty % 8 == 0):
            out.append(f"query {'?' * len(theirs[0]) if theirs else '?'} rowsort\n{sql}\n----\n{slt_rows(ours, theirs)}")
    pathlib.Path(path).write_text("\n\n".join(out) + "\n")


def one_round(seed, arguments):
    rng = random.Random(seed)
    tables = [Table(rng, f"r{i}", arguments.small) for i in range(rng.randrange(3, 6))]
    queries = Queries(rng, tables)
    connection = duckdb.connect()
    for setting in ("default_null_order='nulls_last_on_asc_first_on_desc'", "integer_division=true"):
        connection.execute(f"SET {setting}")
    for statement in (s for t in tables for s in t.duckdb):
        connection.execute(statement)
    asked, rejected = [], 0
    for _ in range(arguments.queries):
        sql = queries.top()
        try:
            asked.append((sql, duckdb_rows(connection, sql)))
        except duckdb.Error as e:
            rejected += 1
            if arguments.verbose:
                print(f"DuckDB: {str(e).splitlines()[0]}\n    {sql}")
    failures, unsupported, good = [], 0, []
    with tempfile.TemporaryDirectory() as folder:
        settings = SETTINGS[seed % len(SETTINGS)]
        stoa = Stoa(arguments.stoa, folder, settings)
        stoa.setup([s for t in tables for s in t.stoa])
        for (sql, theirs), ours in zip(asked, stoa.answers([q for q, _ in asked])):
            if isinstance(ours, str):
                if any(u in ours for u in UNSUPPORTED) and "panicked" not in ours:
                    unsupported += 1
                    if arguments.verbose:
                        print(f"unsupported: {ours}\n    {sql}")
                else:
                    failures.append((sql, ours))
            elif difference := same_rows(ours, theirs):
                failures.append((sql, difference))
            else:
                good.append((sql, ours, theirs))
    print(f"round {seed} {settings}: {len(good)} equal, {len(failures)} differ, {unsupported} unsupported, {rejected} rejected by DuckDB", flush=True)
    for sql, why in failures:
        print(f"  {why[:400]}\n    {sql}", flush=True)
    if failures and arguments.out:
        folder = pathlib.Path(arguments.out)
        folder.mkdir(exist_ok=True)
        (folder / f"{seed}.sql").write_text(";\n".join([s for t in tables for s in t.stoa] + [q for q, _ in failures]) + ";\n")
    if arguments.corpus:
        write_corpus(arguments.corpus, arguments, tables, good)
    return len(failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoa", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--small", action="store_true", help="tables of at most 30 rows")
    parser.add_argument("--out", help="folder for failing queries with their tables")
    parser.add_argument("--corpus", help="write the round's queries and answers as a sqllogictest file")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    rounds = 1 if arguments.corpus else arguments.rounds
    failed = sum(one_round(seed, arguments) for seed in range(arguments.seed, arguments.seed + rounds))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
