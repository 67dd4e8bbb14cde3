//! The lines that set a client up for a repository, as docs/guide says them, filled in with the address that the client uses. Words in
//! capitals are for the user to replace. The one place of these lines: whatever shows them takes them from here.

use larder_core::{PackageType, Repository, RepositoryKind};
use url::{Host, Url};

/// What a user copies to set one client up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLines {
    /// The client, or several that take the same lines.
    pub client: &'static str,
    /// Where the lines go: a shell, or a file's name.
    pub place: &'static str,
    /// The lines, without a line end behind the last one.
    pub text: String,
}

/// Where a repository is, as a client of it sees it.
struct Place<'a> {
    name: &'a str,
    /// Scheme, host and port, and the path in front of larder; no slash at the end.
    base: &'a str,
    /// There is no such path.
    is_at_root: bool,
    /// The repository's own address; no slash at the end.
    root: String,
    /// Host and port.
    authority: String,
    host: String,
    /// Clients are to be told that they may go without TLS.
    is_plain: bool,
    is_loopback: bool,
}

const SHELL: &str = "in a shell";

/// The lines for each client of this repository. `base` is the address of larder (scheme, host, port, maybe a path) that the user's
/// clients have; a slash at its end does not matter.
pub fn client_lines(base: &str, repository: &Repository) -> Vec<ClientLines> {
    let place = Place::new(base, repository);
    match repository.package {
        PackageType::Pypi => pypi(&place),
        PackageType::Npm => npm(&place),
        PackageType::Helm => helm(&place),
        PackageType::Docker => docker(&place, repository),
        PackageType::Rpm => rpm(&place),
        PackageType::Alpine => alpine(&place),
        PackageType::Generic => generic(&place, repository.kind()),
    }
}

/// The address of a repository, without a slash at its end.
pub fn repository_url(base: &str, repository: &Repository) -> String {
    let kind = if repository.kind() == RepositoryKind::Virtual {
        "virtual"
    } else {
        "remote"
    };
    format!(
        "{}/api/v1/{kind}/{}",
        base.trim_end_matches('/'),
        repository.name
    )
}

impl<'a> Place<'a> {
    fn new(base: &'a str, repository: &'a Repository) -> Self {
        let url = Url::parse(base).ok();
        let host = url
            .as_ref()
            .and_then(Url::host_str)
            .unwrap_or_default()
            .to_owned();
        let port = url
            .as_ref()
            .and_then(Url::port)
            .map_or_else(String::new, |port| format!(":{port}"));
        let is_loopback = match url.as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Self {
            name: repository.name.as_str(),
            base: base.trim_end_matches('/'),
            is_at_root: url.as_ref().is_none_or(|url| url.path() == "/"),
            root: repository_url(base, repository),
            authority: format!("{host}{port}"),
            host,
            is_plain: url.is_some_and(|url| url.scheme() == "http"),
            is_loopback,
        }
    }
}

fn lines(client: &'static str, place: &'static str, text: String) -> ClientLines {
    ClientLines {
        client,
        place,
        text,
    }
}

fn pypi(place: &Place<'_>) -> Vec<ClientLines> {
    let index = format!("{}/simple/", place.root);
    // pip takes plain HTTP from loopback only.
    let trusted = if place.is_plain && !place.is_loopback {
        format!("\npip config set global.trusted-host {}", place.host)
    } else {
        String::new()
    };
    vec![
        lines(
            "pip",
            SHELL,
            format!("pip config set global.index-url {index}{trusted}"),
        ),
        lines("uv", SHELL, format!("export UV_DEFAULT_INDEX={index}")),
        lines(
            "uv",
            "pyproject.toml, for uv lock and uv sync",
            format!("[[tool.uv.index]]\nname = \"larder\"\nurl = \"{index}\"\ndefault = true"),
        ),
        lines(
            "poetry",
            "in a shell, in the project",
            format!("poetry source add --priority=primary larder {index}"),
        ),
    ]
}

fn npm(place: &Place<'_>) -> Vec<ClientLines> {
    let root = &place.root;
    let plain = if place.is_plain {
        format!(
            "\nyarn config set --json unsafeHttpWhitelist '[\"{}\"]'",
            place.host
        )
    } else {
        String::new()
    };
    vec![
        lines("npm", SHELL, format!("npm config set registry {root}/")),
        lines("pnpm", SHELL, format!("pnpm config set registry {root}/")),
        lines("npm, pnpm", ".npmrc", format!("registry={root}/")),
        lines("yarn 1", SHELL, format!("yarn config set registry {root}/")),
        lines(
            "yarn 4",
            "in a shell, in the project",
            format!("yarn config set npmRegistryServer {root}{plain}"),
        ),
        lines(
            "bun",
            "bunfig.toml",
            format!("[install]\nregistry = \"{root}/\""),
        ),
    ]
}

fn helm(place: &Place<'_>) -> Vec<ClientLines> {
    let (name, root) = (place.name, &place.root);
    vec![
        lines(
            "helm",
            SHELL,
            format!("helm repo add {name} {root}\nhelm repo update {name}\nhelm pull {name}/CHART"),
        ),
        lines(
            "helm",
            "Chart.yaml, in an entry of dependencies",
            format!("repository: {root}"),
        ),
    ]
}

fn docker(place: &Place<'_>, repository: &Repository) -> Vec<ClientLines> {
    let registry = repository
        .upstream()
        .and_then(|upstream| upstream.base_urls.first())
        .filter(|url| url.host().is_some());
    // A registry is a host to all others: they look for `/v2/` at its root.
    let mut all = Vec::new();
    if place.is_at_root {
        all.extend(images(place));
    }
    if let Some(registry) = registry {
        all.push(containerd(place, registry));
    }
    if place.is_at_root && registry.is_some() {
        all.push(mirror(place));
    }
    all
}

/// Images by larder's own name.
fn images(place: &Place<'_>) -> Vec<ClientLines> {
    let (name, authority) = (place.name, &place.authority);
    let image = format!("{authority}/{name}/IMAGE:TAG");
    let plain = if place.is_plain {
        " --tls-verify=false"
    } else {
        ""
    };
    let mut all = vec![
        lines("docker", SHELL, format!("docker pull {image}")),
        lines("podman", SHELL, format!("podman pull{plain} {image}")),
        lines(
            "skopeo",
            SHELL,
            format!("skopeo inspect{plain} docker://{image}"),
        ),
    ];
    if place.is_plain && !place.is_loopback {
        let engine = format!("{{ \"insecure-registries\": [\"{authority}\"] }}");
        all.push(lines(
            "docker",
            "/etc/docker/daemon.json, for larder is reached without TLS",
            engine,
        ));
    }
    all
}

fn containerd(place: &Place<'_>, registry: &Url) -> ClientLines {
    let (server, base, name) = (
        registry.origin().ascii_serialization(),
        place.base,
        place.name,
    );
    lines(
        "containerd, as a mirror",
        "/etc/containerd/certs.d/REGISTRY/hosts.toml",
        format!(
            "server = \"{server}\"\n\n[host.\"{base}/v2/{name}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true"
        ),
    )
}

fn mirror(place: &Place<'_>) -> ClientLines {
    let (name, authority) = (place.name, &place.authority);
    let insecure = if place.is_plain {
        "\ninsecure = true"
    } else {
        ""
    };
    lines(
        "podman, skopeo, as a mirror",
        "/etc/containers/registries.conf.d/larder.conf",
        format!(
            "[[registry]]\nprefix = \"REGISTRY\"\nlocation = \"REGISTRY\"\n\n[[registry.mirror]]\nlocation = \"{authority}/{name}\"{insecure}"
        ),
    )
}

fn rpm(place: &Place<'_>) -> Vec<ClientLines> {
    let (name, root) = (place.name, &place.root);
    vec![
        lines(
            "dnf, yum",
            "/etc/yum.repos.d/larder.repo; FOLDER is the one that has repodata/",
            format!(
                "[larder-{name}]\nname={name} through larder\nbaseurl={root}/FOLDER/\nenabled=1\ngpgcheck=1\ngpgkey=FILE-OR-ADDRESS-OF-THE-KEY"
            ),
        ),
        lines(
            "zypper",
            SHELL,
            format!("zypper addrepo --refresh --gpgcheck {root}/FOLDER {name}"),
        ),
    ]
}

fn alpine(place: &Place<'_>) -> Vec<ClientLines> {
    let root = &place.root;
    vec![
        lines(
            "apk",
            "/etc/apk/repositories",
            format!("{root}/vVERSION/main\n{root}/vVERSION/community"),
        ),
        lines(
            "apk",
            SHELL,
            format!("sed -i 's|https\\?://.*/alpine/|{root}/|' /etc/apk/repositories"),
        ),
    ]
}

fn generic(place: &Place<'_>, kind: RepositoryKind) -> Vec<ClientLines> {
    let root = &place.root;
    let mut all = vec![
        lines("curl", SHELL, format!("curl -fLO {root}/PATH")),
        lines("wget", SHELL, format!("wget {root}/PATH")),
        lines(
            "apt",
            "/etc/apt/sources.list.d/larder.list",
            format!("deb [signed-by=KEYRING] {root} SUITE COMPONENT"),
        ),
    ];
    if kind == RepositoryKind::Local {
        let sent = format!("curl -fT FILE -H 'Authorization: Bearer TOKEN' {root}/PATH");
        all.push(lines("curl, to upload", SHELL, sent));
    }
    all
}

#[cfg(test)]
mod tests {
    use larder_core::{Kind, LocalSettings, VirtualSettings};

    use super::*;
    use crate::testing::remote;

    fn text_of(base: &str, package: PackageType, client: &str) -> String {
        let repository = remote("main", package, "https://upstream.example.com/");
        let found: Vec<String> = client_lines(base, &repository)
            .into_iter()
            .filter(|lines| lines.client == client)
            .map(|lines| lines.text)
            .collect();
        found.join("\n\n")
    }

    #[test]
    fn every_client_of_every_type_is_led_to_the_address_that_the_user_has() {
        let clients: [(PackageType, &[&str]); 7] = [
            (PackageType::Generic, &["curl", "wget", "apt"]),
            (PackageType::Alpine, &["apk"]),
            (PackageType::Rpm, &["dnf, yum", "zypper"]),
            (
                PackageType::Docker,
                &["docker", "podman", "skopeo", "containerd, as a mirror"],
            ),
            (PackageType::Pypi, &["pip", "uv", "poetry"]),
            (
                PackageType::Npm,
                &["npm", "pnpm", "yarn 1", "yarn 4", "bun"],
            ),
            (PackageType::Helm, &["helm"]),
        ];
        for (package, clients) in clients {
            for client in clients {
                // Images need larder at the root of its host.
                let (base, address) = if package == PackageType::Docker {
                    ("https://larder.example.com/", "larder.example.com")
                } else {
                    (
                        "https://larder.example.com/cache/",
                        "https://larder.example.com/cache/api/v1/remote/main",
                    )
                };
                let text = text_of(base, package, client);
                assert!(text.contains(address), "{package:?} {client}: {text}");
                assert!(!text.contains("cache//"), "{text}");
            }
        }
    }

    /// docker, podman and skopeo take what is behind the host for a part of the image's name.
    #[test]
    fn behind_a_path_only_containerd_is_led_to_images() {
        let repository = remote("main", PackageType::Docker, "https://registry.example.com/");
        let told = client_lines("https://larder.example.com/cache", &repository);
        let clients: Vec<&str> = told.iter().map(|lines| lines.client).collect();
        assert_eq!(clients, ["containerd, as a mirror"]);
        assert!(
            told[0]
                .text
                .contains("\"https://larder.example.com/cache/v2/main\"")
        );
    }

    #[test]
    fn clients_that_want_tls_are_told_where_there_is_none() {
        let loopback = "http://127.0.0.1:8000";
        let host = "http://larder.example.com:8000";
        assert_eq!(
            text_of(loopback, PackageType::Pypi, "pip"),
            "pip config set global.index-url http://127.0.0.1:8000/api/v1/remote/main/simple/"
        );
        assert!(
            text_of(host, PackageType::Pypi, "pip")
                .ends_with("\npip config set global.trusted-host larder.example.com")
        );
        assert!(
            !text_of("https://larder.example.com", PackageType::Pypi, "pip")
                .contains("trusted-host")
        );
        assert_eq!(
            text_of(loopback, PackageType::Docker, "podman"),
            "podman pull --tls-verify=false 127.0.0.1:8000/main/IMAGE:TAG"
        );
        assert_eq!(
            text_of("https://larder.example.com", PackageType::Docker, "podman"),
            "podman pull larder.example.com/main/IMAGE:TAG"
        );
        assert!(
            text_of(loopback, PackageType::Npm, "yarn 4")
                .contains("unsafeHttpWhitelist '[\"127.0.0.1\"]'")
        );
        assert!(
            !text_of("https://larder.example.com", PackageType::Npm, "yarn 4")
                .contains("unsafeHttp")
        );
    }

    #[test]
    fn only_where_files_are_uploaded_is_said_how() {
        let mut repository = remote("main", PackageType::Generic, "https://files.example.com/");
        let uploads = |repository: &Repository| {
            let told = client_lines("https://larder.example.com", repository).into_iter();
            let told = told.filter(|lines| lines.client == "curl, to upload");
            told.map(|lines| lines.text).collect::<Vec<_>>()
        };
        assert_eq!(uploads(&repository), [""; 0]);
        repository.kind = Kind::Local(LocalSettings::default());
        assert_eq!(
            uploads(&repository),
            [
                "curl -fT FILE -H 'Authorization: Bearer TOKEN' https://larder.example.com/api/v1/remote/main/PATH"
            ]
        );
    }

    #[test]
    fn a_virtual_repository_has_its_own_address() {
        let mut repository = remote("all", PackageType::Helm, "https://upstream.example.com/");
        repository.kind = Kind::Virtual(VirtualSettings::default());
        assert_eq!(
            repository_url("http://localhost:8000/", &repository),
            "http://localhost:8000/api/v1/virtual/all"
        );
    }
}
