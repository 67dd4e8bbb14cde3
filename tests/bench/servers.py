"""The servers of the benchmark: started on loopback, known by their PID, measured from outside, ended by their PID.

CPU time is that of the process tree by the kernel's own clock (user and system, in nanoseconds); memory is what
`/proc/PID/status` says of it.
"""

import contextlib
import ctypes
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 40


class Failed(Exception):
    """The benchmark cannot go on; the text is what the user reads."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent():
    """In a child: a SIGTERM when this program dies, however that happens."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """A child process that listens on a port."""

    name = "server"

    def __init__(self, directory):
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = directory / f"{self.name}.log"
        self._process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory), "RUST_BACKTRACE": "1"}

    def launch(self):
        """Starts the process and does not wait for it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self.command()],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=end_with_parent,
            )

    def start(self):
        """Starts the process and waits until its port takes connections."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failed(f"{self.name} ended with {self._process.returncode} at its start\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.01)
        raise Failed(f"{self.name} did not listen within {START_SECONDS} s\n{self.log_tail()}")

    def stop(self):
        """Ends the process as an init system would, and its children with it."""
        process, self._process = self._process, None
        if process is None:
            return
        children = tree(process.pid)[1:]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def log_tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:]) if self.log.exists() else ""

    @property
    def is_running(self):
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self):
        return tree(self._process.pid)

    def cpu(self):
        """Seconds of CPU that the process tree has used."""
        total = 0.0
        for pid in self.pids:
            # The kernel's number for "CPU clock of process PID", see clock_getcpuclockid(3).
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | 2)
        return total

    def memory(self, field="RssAnon"):
        """MiB of one field of `/proc/PID/status`, over the process tree."""
        return sum(status_field(pid, field) for pid in self.pids) / 1024

    def peak(self):
        """Follows the memory for as long as the `with` block runs."""
        return Peak(self.pids)


class Larder(Server):
    """larder with a configuration and a data directory of its own."""

    name = "larder"

    def __init__(self, directory, binary, origin, without=(), **settings):
        super().__init__(directory)
        self.data_directory = directory / "data"
        remotes = {name: remote for name, remote in repositories(origin).items() if name not in without}
        known = {"drain": 0, "remotes": remotes, **settings}
        known = {name: setting for name, setting in known.items() if name not in without}
        self._binary = binary
        self._config = directory / "larder.yaml"
        # JSON is YAML, and needs no library to be written.
        self._config.write_text(json.dumps(known, indent=2) + "\n")

    def command(self):
        options = ["--config", self._config, "--data-dir", self.data_directory, "--listen", f"127.0.0.1:{self.port}"]
        return [self._binary, "serve", *options]

    def path(self, repository, path):
        if repository == "images":
            return f"/v2/images/{path}"
        kind = "virtual" if repository == "merged" else "remote"
        return f"/api/v1/{kind}/{repository}/{path}"


# Seconds that the repositories of the case `stale` call a copy fresh.
SHORT_TTL = 3


def repositories(origin):
    def remote(package, path="", ttl=3600, **more):
        cache = {"immutable_ttl": 0, "mutable_ttl": ttl}
        return {"type": "remote", "package": package, "base_url": origin.url + path, "cache": cache, **more}

    return {
        "files": remote("generic"),
        "npm": remote("npm", "/npm"),
        "pypi": remote("pypi", "/pypi"),
        "helm": remote("helm", "/helm"),
        "charts": remote("helm", "/charts"),
        # Two members with the same charts: the merged index is as long as the one that nginx sends.
        "other-helm": remote("helm", "/helm"),
        "merged": {"type": "virtual", "package": "helm", "members": ["helm", "other-helm"]},
        "images": remote("docker"),
        "rpm": remote("rpm", "/rpm", immutable_patterns=[r"\.rpm$"]),
        "apk": remote("alpine", "/apk", immutable_patterns=[r"\.apk$"]),
        "short-files": remote("generic", ttl=SHORT_TTL, mutable_patterns=[".*"]),
        "short-npm": remote("npm", "/npm", SHORT_TTL),
        "short-pypi": remote("pypi", "/pypi", SHORT_TTL),
        "short-helm": remote("helm", "/helm", SHORT_TTL),
    }


class Nginx(Server):
    """nginx as a caching proxy: what larder is measured against."""

    name = "nginx"

    def __init__(self, directory, origin, certificate=None):
        super().__init__(directory)
        self._config = directory / "nginx.conf"
        self._config.write_text(nginx_configuration(directory, self.port, origin.port, certificate))

    def command(self):
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        return [program, "-e", self.directory / "error.log", "-p", self.directory, "-c", self._config]

    def path(self, repository, path):
        """The origin's own path: nginx rewrites nothing."""
        prefix = repository.removeprefix("short-").replace("images", "v2").replace("merged", "helm")
        return f"/{path}" if prefix == "files" else f"/{prefix}/{path}"


def make_certificate(directory):
    """A certificate of its own making for 127.0.0.1, and its key."""
    files = {"cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")}
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *names, "-keyout", files["key"], "-out", files["cert"]], check=True, capture_output=True
    )
    return files


def nginx_configuration(directory, port, origin_port, certificate):
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    temporary = " ".join(f"{kind}_temp_path {directory}/tmp-{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    secure = "ssl http2" if certificate else ""
    files = f"ssl_certificate {certificate['cert']}; ssl_certificate_key {certificate['key']};" if certificate else ""
    return f"""\
{user} daemon off; worker_processes 2; worker_rlimit_nofile 20000;
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 75; keepalive_requests 100000000;
  open_file_cache max=10000 inactive=300s; open_file_cache_valid 60s; default_type application/octet-stream;
  {temporary} uwsgi_temp_path {directory}/tmp-uwsgi; scgi_temp_path {directory}/tmp-scgi;
  proxy_cache_path {directory}/cache levels=1:2 keys_zone=cache:50m max_size=30g inactive=24h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} {secure} reuseport backlog=4096; {files}
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_connect_timeout 2s;
      proxy_set_header Connection ""; proxy_set_header Host 127.0.0.1:{origin_port};
      proxy_cache cache; proxy_cache_key "$request_uri|$http_accept"; proxy_cache_valid 200 1h;
      proxy_cache_lock on; proxy_cache_lock_timeout 120s; proxy_cache_lock_age 120s;
      proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
      proxy_cache_background_update on; proxy_cache_revalidate on;
    }}
  }}
}}
"""


class Registry(Server):
    """The distribution project's registry as a pull-through cache: what clusters run where larder would stand. Images only."""

    name = "registry"

    def __init__(self, directory, origin):
        super().__init__(directory)
        self._config = directory / "registry.json"
        settings = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data"), "maxthreads": 100}, "cache": {"blobdescriptor": "inmemory"}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
            "proxy": {"remoteurl": origin.url},
        }
        self._config.write_text(json.dumps(settings))

    def command(self):
        return [shutil.which("docker-registry"), "serve", self._config]

    def path(self, _repository, path):
        return f"/v2/{path}"


class Origin(Server):
    """The upstream."""

    name = "origin"

    def __init__(self, directory, data_directory):
        super().__init__(directory)
        self._data = data_directory
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self):
        return [sys.executable, HERE / "origin.py", "--port", self.port, "--data", self._data]

    def set(self, **values):
        """Changes how files are sent; see origin.py."""
        self._control("/_set?" + "&".join(f"{name}={value}" for name, value in values.items()))

    def reset(self):
        self._control("/_reset")

    def gets(self, part):
        """How many GETs came for paths with this text in them."""
        counts = self._control("/_counts")
        return sum(count for key, count in counts.items() if key.startswith("GET ") and part in key)

    def _control(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class Peak:
    """The most memory that a process tree uses within the `with` block, looked at every 10 ms by another process."""

    def __init__(self, pids):
        self._pids = pids
        self.before = {}
        self.most = {}

    def __enter__(self):
        self._watcher = subprocess.Popen(
            [sys.executable, __file__, *map(str, self._pids)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.before = json.loads(self._watcher.stdout.readline())
        return self

    def __exit__(self, *_):
        out, _ = self._watcher.communicate("end\n", timeout=20)
        self.most = json.loads(out)

    def growth(self, field="RssAnon"):
        """MiB."""
        return (self.most[field] - self.before[field]) / 1024


WATCHED = ("RssAnon", "VmRSS")


def watch(pids):
    """The process behind [`Peak`]: prints the first values, and the highest ones when a line comes in."""
    import select

    most = {field: sum(status_field(pid, field) for pid in pids) for field in WATCHED}
    print(json.dumps(most), flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        for field in WATCHED:
            most[field] = max(most[field], sum(status_field(pid, field) for pid in pids))
    print(json.dumps(most), flush=True)


def tree(pid):
    """A process and all below it."""
    pids = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                pids += tree(int(child))
    except OSError:
        pass
    return pids


def status_field(pid, field):
    """KiB; 0 when the process has gone."""
    try:
        found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


if __name__ == "__main__":
    watch([int(pid) for pid in sys.argv[1:]])
