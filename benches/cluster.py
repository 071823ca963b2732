"""A cluster of processes on this machine, for the scripts beside this file."""
import json
import os
import subprocess
import threading
import time


class Cluster:
    within = []  # words before the program

    def __init__(self, stoa, folder, coordinators, leaves):
        self.stoa, self.folder = stoa, folder
        self.run("cluster", "start", "--coordinators", str(coordinators), "--leaves", str(leaves), "--dir", str(folder))
        os.environ["STOA_SECRET"] = json.loads((folder / "cluster.json").read_text())["secret"]
        self.coordinators = [f"coordinator{i + 1}" for i in range(coordinators)]
        nodes = self.coordinators + [f"leaf{i + 1}" for i in range(leaves)]
        # A node that starts again has the address that it had.
        self.addresses = {node: (folder / f"{node}.log").read_text().split(" listening on ")[1].split()[0] for node in nodes}

    def run(self, *args):
        done = subprocess.run([*self.within, self.stoa, *args], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def address(self, node):
        return self.addresses[node]

    def connect(self):
        return ",".join(self.address(node) for node in self.coordinators)

    def sql(self, text, database="stoa"):
        return self.run("sql", "--connect", self.connect(), "--database", database, "--format", "csv", "-c", text)

    def table(self, text, database="stoa"):
        head, *rows = [line.split(",") for line in self.sql(text, database).splitlines()]
        return [dict(zip(head, row)) for row in rows]

    def pid(self, node):
        lines = self.run("cluster", "status", "--dir", str(self.folder)).splitlines()
        row = next(line for line in lines if f" {node} " in line)
        return int(row.replace("│", "┆").split("┆")[3])

    def start(self):
        self.run("cluster", "start", "--dir", str(self.folder))

    def stop(self):
        self.run("cluster", "stop", "--dir", str(self.folder))

    def whole(self, replicas, database="stoa"):
        while self.sql("SHOW PARTITIONS", database).count(",Slave,") < replicas:
            time.sleep(0.05)


class Apart(Cluster):
    """One coordinator and some leaves, each in a network namespace of its own, on a bridge: needs root and ip(8)."""

    def __init__(self, stoa, folder, leaves):
        self.stoa, self.folder, self.name, self.processes = stoa, folder, f"sb{os.getpid()}", []
        os.environ["STOA_SECRET"] = "a secret of this run"
        folder.mkdir()
        self.hub, self.coordinators = f"{self.name}h", ["coordinator1"]
        self.nodes = self.coordinators + [f"leaf{i + 1}" for i in range(leaves)]
        self.addresses = {node: f"10.77.0.{i + 1}:7000" for i, node in enumerate(self.nodes)}
        self.within = ["ip", "netns", "exec", self.hub]
        self.ip(f"netns add {self.hub}", f"-n {self.hub} link add hub type bridge",
                f"-n {self.hub} addr add 10.77.0.254/24 dev hub", f"-n {self.hub} link set hub up")
        for i, node in enumerate(self.nodes):
            own = f"{self.name}n{i}"
            self.ip(f"netns add {own}", f"-n {self.hub} link add {node} type veth peer name net netns {own}",
                    f"-n {own} addr add 10.77.0.{i + 1}/24 dev net", f"-n {own} link set net up", f"-n {own} link set lo up",
                    f"-n {self.hub} link set {node} master hub", f"-n {self.hub} link set {node} up")
            kind = ["coordinator", "--bootstrap"] if i == 0 else ["leaf"]
            command = ["ip", "netns", "exec", own, stoa, *kind, "--insecure", "--data", str(folder / node),
                       "--listen", self.addresses[node]]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(folder / f"{node}.log", "w"), text=True)
            self.processes.append(process)
            assert " listening on " in process.stdout.readline()
            if i:
                self.sql(f"ADD LEAF '{self.addresses[node]}'")
        self.sql("DROP DATABASE IF EXISTS stoa; CREATE DATABASE stoa PARTITIONS 2")

    def ip(self, *commands):
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)

    def cut(self, node):
        self.ip(f"-n {self.hub} link set {node} down")
        return node

    def heal(self, node):
        self.ip(f"-n {self.hub} link set {node} up")

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.ip(*(f"netns del {self.name}n{i}" for i in range(len(self.nodes))), f"netns del {self.hub}")


class Load:
    """Clients that run statements one after the other until they are told to end: how long each took, and which failed."""

    def __init__(self, cluster, statements):
        self.cluster, self.ended, self.times, self.failed = cluster, threading.Event(), {}, []
        self.threads = [threading.Thread(target=self.work, args=item) for item in statements.items()]
        for thread in self.threads:
            thread.start()

    def work(self, name, statement):
        times, number = self.times.setdefault(name, []), 0
        while not self.ended.is_set():
            began = time.perf_counter()
            try:
                self.cluster.sql(statement(number))
            except RuntimeError as error:
                self.failed.append(f"{name}: {error}")
            times.append(time.perf_counter() - began)
            number += 1

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
