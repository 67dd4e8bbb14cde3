#!/usr/bin/env python3
"""How many replicas a fleet needs, computed: every host fetches its updates within a few minutes, and what gives out first.

    python3 tests/bench/model.py                                # 10,000 hosts patch at 09:00
    python3 tests/bench/model.py --hosts 50000 --window 900 --tls --cold 1.0
    python3 tests/bench/model.py --set cores=8 --set nic_gbit=25 --json

Each figure of COSTS was measured on one core of one machine (docs/operate/capacity.md says how), or is marked as an assumption. It
says where to look first; it replaces no test with the clients' own load. Needs nothing but Python.
"""

import argparse
import dataclasses
import json
import sys

GIB = 1 << 30
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Cost:
    """One coefficient: its value, its unit, and whether somebody has measured it."""

    value: float
    unit: str
    what: str
    measured: bool


COSTS = {
    "hit_us": Cost(55, "us CPU", "a held file of 10 KiB, of many different ones, over HTTP", True),
    "gib_s": Cost(0.25, "s CPU", "a GiB of held files over plain HTTP (sendfile)", True),
    "tls_gib_s": Cost(1.1, "s CPU", "a GiB of held files over TLS", True),
    "handshake_us": Cost(700, "us CPU", "a TLS handshake", False),
    "miss_us": Cost(2500, "us CPU", "a file of 10 KiB that is downloaded and stored", True),
    "miss_gib_s": Cost(8.7, "s CPU", "a GiB that is downloaded, hashed, stored and passed on", True),
    "take_us": Cost(2500, "us CPU", "a file of 10 KiB that the cluster holds and this replica does not", True),
    "take_gib_s": Cost(3.4, "s CPU", "a GiB of such files, from the store", True),
    "follow_gib_s": Cost(10.2, "s CPU", "a GiB of files that a peer downloads just now", True),
    "miss_transactions": Cost(3.2, "", "transactions of a file that is downloaded", True),
    "take_transactions": Cost(1.2, "", "transactions of a file that a replica takes from the others or the store", True),
    "rest_transactions": Cost(5, "/s", "transactions of a replica at rest", True),
    "transaction_us": Cost(450, "us CPU", "a transaction, on the database's side", True),
}

# What is there to be used, and what may be changed with --set.
PLACES = {
    "cores": (4.0, "processors of a replica"),
    "nic_gbit": (10.0, "Gbit/s of a replica's network"),
    "connections": (10_000.0, "limits.connections of a replica"),
    "upstream_gbit": (1.0, "Gbit/s to the upstreams, of all replicas together"),
    "store_gbit": (10.0, "Gbit/s of the S3 store"),
    "postgres_cores": (4.0, "processors of PostgreSQL"),
    "headroom": (0.7, "part of everything that may be planned with"),
}


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Who asks for what, and when."""

    hosts: int = 10_000
    window: float = 300.0
    documents: int = 6
    document_kib: float = 1_500.0
    packages: int = 60
    package_mib: float = 1.5
    distinct: int = 400
    cold: float = 0.25
    connections: int = 3
    tls: bool = False

    @property
    def requests(self):
        return self.hosts * (self.documents + self.packages)

    @property
    def bytes(self):
        return self.hosts * (self.documents * self.document_kib * 1024 + self.packages * self.package_mib * MIB)

    @property
    def distinct_bytes(self):
        return self.distinct * self.package_mib * MIB + self.documents * self.document_kib * 1024


def demand(fleet, replicas, costs, places):
    """Of each resource: what is needed of it within the window, and what there is, both a second."""
    window, gbit = fleet.window, 1e9 / 8
    objects = fleet.distinct + fleet.documents
    cold, cold_bytes = fleet.cold * objects, fleet.cold * fleet.distinct_bytes
    # Each replica needs each object once. What is cold one of them downloads, and the others follow it; the rest is in the store, and in
    # no tier yet: the worst case, for a replica that has run before has most of it.
    followed_bytes = cold_bytes * (replicas - 1) / replicas
    stored, stored_bytes = objects - cold, fleet.distinct_bytes - cold_bytes
    taken = stored + cold * (replicas - 1) / replicas
    cpu = fleet.requests * costs["hit_us"] / 1e6
    cpu += fleet.bytes / GIB * (costs["tls_gib_s"] if fleet.tls else costs["gib_s"])
    cpu += fleet.hosts * fleet.connections * costs["handshake_us"] / 1e6 if fleet.tls else 0
    cpu += cold * costs["miss_us"] / 1e6 + cold_bytes / GIB * costs["miss_gib_s"]
    cpu = cpu / replicas + taken * costs["take_us"] / 1e6
    cpu += (followed_bytes * costs["follow_gib_s"] + stored_bytes * costs["take_gib_s"]) / GIB
    transactions = cold * costs["miss_transactions"] + replicas * taken * costs["take_transactions"]
    transactions += replicas * window * costs["rest_transactions"]
    sent = fleet.bytes / replicas + followed_bytes
    store = cold_bytes + replicas * stored_bytes
    return {
        "network of a replica": (sent / window / gbit, places["nic_gbit"]),
        "processors of a replica": (cpu / window, places["cores"]),
        "connections of a replica": (fleet.hosts * fleet.connections / replicas, places["connections"]),
        "line to the upstreams": (cold_bytes / window / gbit, places["upstream_gbit"]),
        "S3 store": (store / window / gbit, places["store_gbit"]),
        "processors of PostgreSQL": (transactions * costs["transaction_us"] / 1e6 / window, places["postgres_cores"]),
    }


ADD = {
    "network of a replica": "replicas, or faster network for each: nothing else makes bytes fewer",
    "processors of a replica": "replicas or processors; behind TLS a proxy that ends it, or plain HTTP where the network is trusted",
    "connections of a replica": "limits.connections, which costs nothing until used, and the descriptors for it; or replicas",
    "line to the upstreams": "time: bulk caching before the hour, so that nothing is cold at 09:00",
    "S3 store": "room for the tiers (s3.tier), so that replicas keep what they have had; replicas do not help, they ask more of it",
    "processors of PostgreSQL": "processors there; replicas do not help, they ask more of it",
}


def table(fleet, costs, places, most):
    """One line for each number of replicas: the use of each resource, and which is the first to give out."""
    rows = []
    for replicas in range(1, most + 1):
        uses = {name: need / have for name, (need, have) in demand(fleet, replicas, costs, places).items()}
        first = max(uses, key=uses.get)
        rows.append({"replicas": replicas, "uses": uses, "first": first, "fits": uses[first] <= places["headroom"]})
    return rows


def enough(rows):
    return next((row for row in rows if row["fits"]), None)


def report(fleet, costs, places, rows):
    gib = fleet.bytes / GIB
    print(
        f"{fleet.hosts:,} hosts within {fleet.window:.0f} s: {fleet.requests:,} requests, {gib:,.0f} GiB, of {fleet.distinct_bytes / GIB:.2f} GiB "
        f"in different files, {fleet.cold:.0%} of them not held yet{'; over TLS' if fleet.tls else ''}\n"
    )
    names = list(rows[0]["uses"])
    print("| replicas | " + " | ".join(names) + " | the first limit |")
    print("|" + "---|" * (len(names) + 2))
    for row in rows:
        uses = " | ".join(f"{row['uses'][name]:.0%}" for name in names)
        print(f"| {row['replicas']} | {uses} | {row['first']}{'' if row['fits'] else ' (too much)'} |")
    fits = enough(rows)
    if fits is None:
        print(f"\n{rows[-1]['replicas']} replicas are not enough. The first limit is then: {rows[-1]['first']}. What to add: {ADD[rows[-1]['first']]}.")
    else:
        print(f"\n{fits['replicas']} replicas do it, at most {places['headroom']:.0%} used. The next limit is then: {fits['first']}. What to add: {ADD[fits['first']]}.")
    assumed = [name for name, cost in COSTS.items() if not cost.measured]
    print(f"Not measured: {', '.join(assumed)}, and all of {', '.join(PLACES)}: what there is, which --set says.")


def check():
    """The model says what has to hold of any such model."""
    costs = {name: cost.value for name, cost in COSTS.items()}
    places = {name: value for name, (value, _) in PLACES.items()}
    fleet = Fleet()
    one, four = demand(fleet, 1, costs, places), demand(fleet, 4, costs, places)
    assert four["network of a replica"][0] < one["network of a replica"][0]
    assert four["line to the upstreams"] == one["line to the upstreams"], "the upstream is asked once"
    assert four["processors of PostgreSQL"][0] > one["processors of PostgreSQL"][0]
    twice = dataclasses.replace(fleet, hosts=2 * fleet.hosts)
    assert demand(twice, 1, costs, places)["line to the upstreams"] == one["line to the upstreams"]
    # 10,000 hosts that take 90 MiB of packages each within 100 s: 9 GB/s on one machine's network, whatever else.
    plain = Fleet(window=100, documents=0, distinct=1, cold=0)
    need = demand(plain, 1, costs, places)["network of a replica"][0]
    assert abs(need - 10_000 * 90 * MIB * 8 / 100 / 1e9) < 1e-6, need
    assert ADD.keys() == one.keys()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Fleet):
        if field.type is bool or field.name == "tls":
            parser.add_argument("--tls", action="store_true")
        else:
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"one of {', '.join([*PLACES, *COSTS])}")
    parser.add_argument("--replicas", type=int, default=12, help="up to how many")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="test the model itself")
    return parser.parse_args()


def main():
    options = arguments()
    if options.check:
        check()
        print("the model holds")
        return
    costs = {name: cost.value for name, cost in COSTS.items()}
    places = {name: value for name, (value, _) in PLACES.items()}
    for setting in options.set:
        name, _, value = setting.partition("=")
        target = costs if name in costs else places
        if name not in target:
            sys.exit(f"--set {name}: there is no such figure; there are {', '.join([*PLACES, *COSTS])}")
        try:
            target[name] = float(value)
        except ValueError:
            sys.exit(f"--set {name}: {value!r} is not a number")
    fleet = Fleet(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Fleet)})
    rows = table(fleet, costs, places, options.replicas)
    if options.json:
        print(json.dumps({"fleet": dataclasses.asdict(fleet), "costs": costs, "places": places, "rows": rows}, indent=2))
    else:
        report(fleet, costs, places, rows)


if __name__ == "__main__":
    main()
