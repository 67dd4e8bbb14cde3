"""PostgreSQL, Redis and an S3 store for the cases: `run.py --backends` runs every case over all three.

One server of each kind, on free loopback ports, for all cases of a run. A case has a database of its own, a number of Redis
and a prefix in the bucket. They are ended by their process ids.
"""

import datetime
import hashlib
import hmac
import itertools
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from harness import Failed, Missing, last_lines, tool
from origin import free_port

START_SECONDS = 60
BUCKET = "artifacts"
USER = "larder"
PASSWORD = "loopback-only"


class Backends:
    """The three servers. Use as a context manager."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="larder-backends-", dir="/tmp"))
        self.directory.chmod(0o755)
        self._processes = []
        self._numbers = itertools.count()

    def __enter__(self):
        try:
            self._start_postgres()
            self._start_redis()
            self._start_objects()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process, how in reversed(self._processes):
            process.send_signal(how)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def for_a_case(self):
        """What a larder of its own is started with: its environment, and further keys of its configuration."""
        number = next(self._numbers)
        database = f"case_{number}"
        self._psql("postgres", f"CREATE DATABASE {database}")
        environment = {
            "DBHOST": "127.0.0.1",
            "DBPORT": str(self._postgres_port),
            "DBUSER": USER,
            "DBPASS": PASSWORD,
            "DBNAME": database,
            "REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/{number % 16}",
            "MINIO_ENDPOINT": f"127.0.0.1:{self._objects_port}",
            "MINIO_SECURE": "false",
            "MINIO_ACCESS_KEY": USER,
            "MINIO_SECRET_KEY": PASSWORD,
            "MINIO_BUCKET": BUCKET,
        }
        return environment, {"s3": {"prefix": f"case-{number}/"}}

    def _start(self, name, command, how=signal.SIGTERM, **more):
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, **more
            )
        self._processes.append((process, how))
        return process, log

    def _until(self, name, started, answers):
        process, log = started
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if answers():
                    return
            except (OSError, Failed):
                pass
            time.sleep(0.1)
        raise Failed(f"{name} did not start\n{last_lines(log.read_text(errors='replace'))}")

    def _start_postgres(self):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            raise Missing("postgresql is not installed; tests/install/clients.sh installs it")
        self._programs = programs[-1]
        # The server refuses to run as root.
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        data = self.directory / "postgres"
        data.mkdir(mode=0o700)
        secret = self.directory / "password"
        secret.write_text(PASSWORD + "\n")
        if as_user:
            owner = pwd.getpwnam("postgres")
            os.chown(data, owner.pw_uid, owner.pw_gid)
            os.chown(secret, owner.pw_uid, owner.pw_gid)
        secret.chmod(0o600)
        made = subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            capture_output=True, text=True, cwd="/", **as_user,
        )  # fmt: skip
        if made.returncode:
            raise Failed(f"initdb failed\n{last_lines(made.stderr)}")
        self._postgres_port = free_port()
        # What a power cut would take is not tested here.
        options = ["fsync=off", "full_page_writes=off", "max_connections=200", f"unix_socket_directories={data}"]
        command = [self._programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", self._postgres_port]
        started = self._start(
            "postgres", [*command, *(part for option in options for part in ("-c", option))], signal.SIGINT, cwd="/", **as_user
        )
        self._until("postgres", started, lambda: self._psql("postgres", "SELECT 1"))

    def _psql(self, database, statement):
        asked = subprocess.run(
            [self._programs / "psql", "-h", "127.0.0.1", "-p", str(self._postgres_port), "-U", USER, "-d", database, "-qtAc",
             statement],
            capture_output=True, text=True, env={"PGPASSWORD": PASSWORD, "PATH": os.defpath},
        )  # fmt: skip
        if asked.returncode:
            raise Failed(asked.stderr)
        return True

    def _start_redis(self):
        self._redis_port = free_port()
        home = self.directory / "redis"
        home.mkdir()
        command = [tool("redis-server"), "--port", self._redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        started = self._start("redis", [*command, "--dir", home])

        def answers():
            with socket.create_connection(("127.0.0.1", self._redis_port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")

        self._until("redis", started, answers)

    def _start_objects(self):
        home = self.directory / "objects"
        home.mkdir()
        identity = {"name": USER, "credentials": [{"accessKey": USER, "secretKey": PASSWORD}], "actions": ["Admin"]}
        settings = home / "s3.json"
        settings.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, self._objects_port = (port_of_two() for _ in range(4))
        started = self._start(
            "objects",
            [tool("weed"), "-logtostderr=true", "-v=0", "server", f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
             f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3",
             f"-s3.port={self._objects_port}", f"-s3.config={settings}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
             "-iam=false", "-master.telemetry=false", "-master.volumeSizeLimitMB=512", "-volume.max=50",
             "-master.volumePreallocate=false", f"-filer.localSocket={home}/filer.sock", f"-s3.localSocket={home}/s3.sock"],
            signal.SIGKILL,
        )  # fmt: skip

        def answers():
            # Volumes are made when they are first written to.
            self._signed("PUT", f"/{BUCKET}", exists=409)
            self._signed("PUT", f"/{BUCKET}/started", body=b"yes")
            return True

        self._until("the S3 store", started, answers)

    def _signed(self, method, path, body=b"", exists=None):
        """One request with an AWS signature, version 4."""
        host = f"127.0.0.1:{self._objects_port}"
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        day, content = stamp[:8], hashlib.sha256(body).hexdigest()
        names = "host;x-amz-content-sha256;x-amz-date"
        request = f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{content}\nx-amz-date:{stamp}\n\n{names}\n{content}"
        scope = f"{day}/us-east-1/s3/aws4_request"
        key = ("AWS4" + PASSWORD).encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers = {
            "x-amz-date": stamp,
            "x-amz-content-sha256": content,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={names}, Signature={signature}",
        }
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(urllib.request.Request(f"http://{host}{path}", data=body, method=method, headers=headers), timeout=5)
        except urllib.error.HTTPError as error:
            if error.code != exists:
                raise


def port_of_two():
    """A free port whose neighbour 10,000 above is free, too: the store's own protocol is spoken there."""
    for _ in range(500):
        port = random.randint(10_000, 19_999)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
                return port
            except OSError:
                continue
    raise Failed("no two free ports were found")


def main():
    """Starts the servers, says on one line what a larder needs to know, and ends them when the input ends."""
    with Backends() as servers:
        environment, settings = servers.for_a_case()
        print(json.dumps({"environment": environment, "settings": settings}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
