"""The Helm chart of packaging/helm: it is linted and rendered in all its forms by both helms. No cluster is asked."""

from harness import ROOT, environment, expect, run, tool

CHART = ROOT / "packaging" / "helm" / "larder"

MANY = (
    "mode=backends,replicas=2,database.host=db-1\\,db-2,database.existingSecret=database,s3.endpoint=objects:8333,"
    "s3.existingSecret=objects,redis.existingSecret=redis,cluster.existingSecret=cluster"
)
EVERYTHING = (
    f"{MANY},autoscaling.enabled=true,networkPolicy.enabled=true,serviceMonitor.enabled=true,ingress.enabled=true,"
    "ingress.tlsSecret=certificate,gateway.enabled=true,gateway.parentRefs[0].name=gateway,adminToken.value=token"
)
# What the `restricted` pod security standard asks for, as it stands in the pod.
RESTRICTED = (
    "runAsNonRoot: true",
    "type: RuntimeDefault",
    "allowPrivilegeEscalation: false",
    "readOnlyRootFilesystem: true",
    'drop: ["ALL"]',
    "automountServiceAccountToken: false",
)


def chart(case):
    env = environment(case.home())
    for name in ("helm3", "helm4"):
        helm = tool(name)

        def template(settings, *more, fails=False, helm=helm):
            arguments = [helm, "template", "release", CHART, "--set", settings, *more]
            return run(arguments, cwd=case.directory, env=env, fails=fails)

        for settings in ("mode=embedded", MANY, EVERYTHING):
            run([helm, "lint", "--strict", CHART, "--set", settings], cwd=case.directory, env=env)

        alone = template("mode=embedded", "--kube-version", "1.29.0")
        expect_kinds(alone, {"ServiceAccount", "ConfigMap", "Service", "StatefulSet"})
        expect("preStop" not in alone, "the sleep action is not known before Kubernetes 1.30")
        expect("replicas: 1\n" in alone and "volumeClaimTemplates" in alone, "one replica over a volume")
        expect("DBHOST" not in alone, "an embedded larder is told of a database")

        many = template(MANY, "--kube-version", "1.30.0")
        expect_kinds(many, {"ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"})
        expect("replicas: 2\n" in many and "preStop" in many, "two replicas that wait before they stop")
        for variable in ("DBHOST", "DBPASS", "REDIS_URL", "MINIO_ENDPOINT", "MINIO_SECRET_KEY", "LARDER_ADVERTISE"):
            expect(f"- name: {variable}\n" in many, f"{variable} is not set")
        expect('value: "db-1,db-2"' in many, "several database hosts")
        for rendered in (alone, many):
            for line in RESTRICTED:
                expect(line in rendered, f"the pod has no {line!r}")

        expect('value: "[$(POD_IP)]:8000"' in many, "an advertised address that may be of IPv6")

        # What larder keeps on the pod's disk leaves room for what is on its way there.
        gib = 1 << 30
        for limit, size in (("10Gi", 10 * gib), ("1.5Gi", 1.5 * gib), ("53687091200", 50 * gib)):
            tier = int(tier_of(template(f"{MANY},tier.sizeLimit={limit}")))
            expect(size / 2 <= tier <= size * 0.8, f"a tier of {tier} bytes on a disk of {limit}")
        expect(tier_of(template(f"{MANY},tier.size=4GiB")) == "4GiB", "a size of its own")
        expect(tier_of(template(f"{MANY},config.s3.tier=3GiB")) == "3GiB", "that of the configuration wins")
        expect(tier_of(alone) is None, "an embedded larder has no tier")
        said = template(f"{MANY},tier.sizeLimit=much", fails=True)
        expect("tier.sizeLimit" in said, f"the key that cannot be read is not named:\n{said}")

        # TLS in larder itself: the certificate's Secret is mounted, and who asks the pods knows it.
        secure = template(
            f"{MANY},config.tls.cert=/tls/tls.crt,config.tls.key=/tls/tls.key,serviceMonitor.enabled=true,"
            "serviceMonitor.tlsConfig.insecureSkipVerify=true,extraVolumes[0].name=tls,"
            "extraVolumes[0].secret.secretName=certificate,extraVolumeMounts[0].name=tls,extraVolumeMounts[0].mountPath=/tls"
        )
        expect(secure.count("scheme: HTTPS") == 3 and "scheme: HTTP " not in secure, "all probes ask over TLS")
        expect("scheme: https" in secure and "insecureSkipVerify: true" in secure, "so does the monitor")
        expect("secretName: certificate" in secure and "mountPath: /tls" in secure, "the certificate is mounted")
        expect(many.count("scheme: HTTP }") == 3, "without TLS they do not")
        expect("LARDER_ADVERTISE" not in secure, "an address of which no certificate holds")
        other_port = template(f"{MANY},listen=0.0.0.0:9000")
        expect("8000" not in other_port.replace("8000:80", ""), f"the port is not the one that is listened on:\n{other_port}")
        expect(other_port.count("9000") == 4, "container, annotation, address to listen on and advertised address")
        said = template(f"{MANY},listen=0.0.0.0:80\\,[::]:81", fails=True)
        expect("one port" in said, f"two ports:\n{said}")
        # Repositories that are given are all there are; null leaves one out, of the chart's own as well.
        for settings, names in (
            ("config=null", {"npm", "pypi"}),
            ("config.s3=null", {"npm", "pypi"}),
            ("config.remotes=null", {"npm", "pypi"}),
            ("config.remotes.npm=null", {"pypi"}),
            ("config.remotes.own.type=local", {"own"}),
            ("config.remotes.npm=null,config.remotes.pypi=null,config.remotes.own.type=local", {"own"}),
            ("config.remotes.npm.package=npm,config.remotes.npm.negative_ttl=5", {"npm"}),
            ("config.config_dir=/more", set()),
        ):
            got = repositories_of(template(f"{MANY},{settings}"))
            expect(got == names, f"{settings}: {got}")
        # Links lead to a name that clients have: nobody has that of an example.
        for settings, address in (
            ("mode=embedded", None),
            ("config.public_url=https://larder.example.net/x", "https://larder.example.net/x"),
            ("ingress.enabled=true,ingress.host=larder.example.net", "http://larder.example.net"),
            ("ingress.enabled=true,ingress.host=larder.example.net,ingress.tlsSecret=t", "https://larder.example.net"),
            ("ingress.enabled=true,config.public_url=https://larder.example.org", "https://larder.example.org"),
        ):
            found = [line.split(": ", 1)[1] for line in template(settings).splitlines() if line.startswith("    public_url:")]
            expect(found == ([address] if address else []), f"{settings}: {found}")
        ipv6 = template(f"{MANY},listen=[::]:8000")
        expect('value: "[::]:8000"' in ipv6, "an address of IPv6 to listen on")

        everything = template(EVERYTHING)
        more = {"Secret", "HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "Ingress", "HTTPRoute"}
        expect_kinds(everything, {"ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"} | more)
        expect("\n  replicas:" not in everything, "an autoscaled Deployment has no number of replicas of its own")

        # What is missing is named.
        said = template("mode=backends", fails=True)
        expect("database.host" in said, f"the missing key is not named:\n{said}")
        said = template("mode=cluster", fails=True)
        expect("embedded or backends" in said, f"the allowed modes are not named:\n{said}")


def repositories_of(rendered):
    """The names below `remotes` of the configuration."""
    lines = iter(rendered.splitlines())
    for line in lines:
        if line == "    remotes: {}":
            return set()
        if line == "    remotes:":
            break
    names = set()
    for line in lines:
        if not line.startswith("      "):
            return names
        if not line.startswith("       "):
            names.add(line.strip(" :"))
    return names


def tier_of(rendered):
    """`s3.tier` of the configuration."""
    found = [line.split(":", 1)[1].strip(' "') for line in rendered.splitlines() if line.startswith("      tier:")]
    return found[0] if found else None


def expect_kinds(rendered, wanted):
    got = {line.removeprefix("kind: ") for line in rendered.splitlines() if line.startswith("kind: ")}
    expect(got == wanted, f"rendered {sorted(got)}, expected {sorted(wanted)}")


CASES = {"chart": chart}
