"""A client of Stoa in Python: SQL and hand-built plans in, Arrow tables out.

    export STOA_CONNECT=127.0.0.1:41077 STOA_SECRET=...
    pip install -r requirements.txt
    python stoa_client.py "SELECT count(*) FROM lineitem"

Without an argument it runs a small tour. The interface is described in docs/protocol.md.
"""

import asyncio
import datetime
import decimal
import os
import pathlib
import sys

import capnp
import pyarrow as pa

capnp.remove_import_hook()
SCHEMAS = pathlib.Path(os.environ.get("STOA_SCHEMAS", pathlib.Path(__file__).parents[2] / "schema" / "capnp"))
wire = capnp.load(str(SCHEMAS / "coordinator.capnp"), imports=[str(SCHEMAS)])
plans = capnp.load(str(SCHEMAS / "plan.capnp"))

# The version of the interface that this client speaks: another major version is refused, a newer minor one only adds.
MAJOR, MINOR = 1, 0


class StoaError(Exception):
    """What a statement failed with. `kind` says what to do about it: user, retryable, fatal, cancelled, memory or denied."""

    def __init__(self, failure):
        super().__init__(failure.message)
        self.kind = str(failure.kind)


class Answer(wire.Answer.Server):
    """Takes the parts of an answer. Each call is answered when the part has been taken: that holds a fast server back."""

    def __init__(self):
        self.tables = []
        self.texts = []

    async def columns(self, stream, **_):
        self.tables.append((pa.ipc.open_stream(stream).schema, []))

    async def rows(self, chunk, **_):
        self.tables[-1][1].extend(pa.ipc.open_stream(chunk))

    async def text(self, text, plan, **_):
        self.texts.append(text)

    def table(self):
        """The rows of the last statement that gave some."""
        if not self.tables:
            return None
        schema, batches = self.tables[-1]
        return pa.Table.from_batches(batches, schema)


class Session:
    """A session on a coordinator."""

    def __init__(self, session, client):
        self._session = session
        # The connection lives as long as this object.
        self._client = client

    @classmethod
    async def connect(cls, addresses, secret="", user="", password="", database=""):
        """Enters the first coordinator that lets this client in."""
        failed = None
        for address in addresses:
            host, port = address.rsplit(":", 1)
            try:
                stream = await capnp.AsyncIoStream.create_connection(host=host, port=int(port))
            except OSError as error:
                failed = error
                continue
            client = capnp.TwoPartyClient(stream)
            gate = client.bootstrap().cast_as(wire.Gate)
            hello = {"major": MAJOR, "minor": MINOR, "secret": secret.encode()}
            entered = (await gate.enter(hello=hello, user=user, password=password, database=database)).result
            if entered.which() == "session":
                return cls(entered.session, client)
            failed = StoaError(entered.failure)
            if failed.kind != "retryable":
                break
        raise failed

    async def execute(self, sql):
        """Runs statements in order; an `Answer` with what they gave."""
        answer = Answer()
        check((await self._session.execute(sql=sql, answer=answer)).result)
        return answer

    async def query(self, sql):
        """The rows of a query as a `pyarrow.Table`."""
        return (await self.execute(sql)).table()

    async def prepare(self, sql):
        """A statement with `?` for values that come later. It lives as long as this session."""
        prepared = (await self._session.prepare(sql=sql)).result
        if prepared.which() == "failure":
            raise StoaError(prepared.failure)
        return Prepared(prepared.done.statement)

    async def execute_plan(self, query):
        """The rows of a plan: a message of plan.capnp, not optimized and without exchanges."""
        answer = Answer()
        check((await self._session.executePlan(plan=query.to_bytes(), answer=answer)).result)
        return answer.table()

    async def load(self, table, batches):
        """Adds rows to a table, all or none: how many they were."""
        loading = (await self._session.load(table=table)).result
        if loading.which() == "failure":
            raise StoaError(loading.failure)
        load = loading.load
        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            check((await load.write(chunk=sink.getvalue().to_pybytes())).result)
        loaded = (await load.finish()).result
        if loaded.which() == "failure":
            raise StoaError(loaded.failure)
        return loaded.rows


class Prepared:
    """A prepared statement."""

    def __init__(self, statement):
        self._statement = statement

    async def execute(self, *values):
        """Runs it with a value for each `?`; an `Answer` with what it gave."""
        answer = Answer()
        check((await self._statement.execute(parameters=[parameter(value) for value in values], answer=answer)).result)
        return answer

    async def query(self, *values):
        """The rows of a prepared query as a `pyarrow.Table`."""
        return (await self.execute(*values)).table()


def parameter(value):
    """A Python value as the value of a parameter."""
    if value is None:
        return {"null": None}
    if isinstance(value, datetime.datetime):
        return {"timestamp": (value - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)}
    if isinstance(value, datetime.date):
        return {"date": (value - datetime.date(1970, 1, 1)).days}
    if isinstance(value, decimal.Decimal):
        return {"decimal": f"{value:f}"}
    kinds = {bool: "bool", int: "int", float: "float", str: "string", bytes: "bytes"}
    return {kinds[type(value)]: value}


def check(done):
    """Raises what a call failed with."""
    if done.which() == "failure":
        raise StoaError(done.failure)


def sum_by_kind(at_least):
    """A plan built field by field: SELECT kind, count(*), sum(amount) FROM tour WHERE amount >= at_least GROUP BY kind ORDER BY kind.

    Every column has a number: the scan defines 0 and 1, the aggregate 2, 3 and 4.
    """
    int64, utf8 = {"int64": None}, {"utf8": None}

    def field(number, name, kind, nullable=True):
        return {"id": number, "name": name, "type": kind, "nullable": nullable}

    def column(number, kind):
        return {"column": {"id": number, "type": kind}}

    condition = {
        "binary": {
            "operator": "gtEq",
            "left": column(1, int64),
            "right": {"literal": {"type": int64, "int": at_least}},
            "type": {"bool": None},
        }
    }
    scan = {
        "table": "tour",
        "columns": [{"ordinal": 0, "field": field(0, "kind", utf8)}, {"ordinal": 1, "field": field(1, "amount", int64)}],
        "filters": [condition],
        "shardKey": [],
    }
    output = [field(2, "kind", utf8), field(3, "n", int64, False), field(4, "total", int64)]
    aggregate = {
        "input": {"scan": scan},
        "keys": [{"field": output[0], "expression": column(0, utf8)}],
        "calls": [
            {"field": output[1], "function": "count", "args": [], "type": int64},
            {"field": output[2], "function": "sum", "args": [column(1, int64)], "type": int64},
        ],
        "phase": "single",
    }
    sort = {"input": {"aggregate": aggregate}, "keys": [{"expression": column(2, utf8)}], "limit": {"all": None}}
    return plans.Query.new_message(version=1, root={"sort": sort}, output=output)


async def tour(session):
    """What the test of this example runs."""
    await session.execute("DROP TABLE IF EXISTS tour")
    answer = await session.execute("CREATE TABLE tour (kind VARCHAR(10), amount BIGINT, SHARD KEY (kind))")
    print(answer.texts[0])
    batch = pa.record_batch({"kind": ["a", "b", "a", "c", "b"], "amount": [1, 2, 3, 4, 50]})
    print("loaded", await session.load("tour", [batch]))
    print("by SQL ", (await session.query("SELECT kind, sum(amount) AS total FROM tour GROUP BY kind ORDER BY kind")).to_pylist())
    prepared = await session.prepare("SELECT count(*) AS n FROM tour WHERE kind = ? AND amount >= ?")
    print("prepared", [(await prepared.query(kind, 2)).to_pylist()[0]["n"] for kind in ("a", "b", None)])
    print("by plan", (await session.execute_plan(sum_by_kind(2))).to_pylist())
    try:
        await session.query("SELECT nothing FROM tour")
    except StoaError as error:
        print(f"{error.kind}: {error}")


async def main():
    session = await Session.connect(
        os.environ.get("STOA_CONNECT", "127.0.0.1:3306").split(","),
        secret=os.environ.get("STOA_SECRET", ""),
        user=os.environ.get("STOA_USER", ""),
        password=os.environ.get("STOA_PASSWORD", ""),
        database=os.environ.get("STOA_DATABASE", ""),
    )
    if len(sys.argv) > 1:
        for sql in sys.argv[1:]:
            answer = await session.execute(sql)
            print(answer.table() if answer.tables else "\n".join(answer.texts))
    else:
        await tour(session)


if __name__ == "__main__":
    asyncio.run(capnp.run(main()))
