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

        everything = template(EVERYTHING)
        more = {"Secret", "HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "Ingress", "HTTPRoute"}
        expect_kinds(everything, {"ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"} | more)
        expect("\n  replicas:" not in everything, "an autoscaled Deployment has no number of replicas of its own")

        # What is missing is named.
        said = template("mode=backends", fails=True)
        expect("database.host" in said, f"the missing key is not named:\n{said}")
        said = template("mode=cluster", fails=True)
        expect("embedded or backends" in said, f"the allowed modes are not named:\n{said}")


def expect_kinds(rendered, wanted):
    got = {line.removeprefix("kind: ") for line in rendered.splitlines() if line.startswith("kind: ")}
    expect(got == wanted, f"rendered {sorted(got)}, expected {sorted(wanted)}")


CASES = {"chart": chart}
