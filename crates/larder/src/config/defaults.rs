//! The public addresses of the ecosystems: they stand in this file and nowhere else.
//!
//! [`BUILT_IN`] is the configuration of a larder that was given none; it is read like any other file.

use larder_core::PackageType;
use url::Url;

/// Root below which PyPI's simple pages are found: `{root}{project}/`.
const PYPI_SIMPLE: &str = "https://pypi.org/simple/";
/// Root of PyPI's files.
const PYPI_FILES: &str = "https://files.pythonhosted.org/";
/// Hosts that mean PyPI when they stand in `base_url`.
const PYPI_HOSTS: &[&str] = &[
    "files.pythonhosted.org",
    "pypi.org",
    "www.pypi.org",
    "pypi.python.org",
];
/// The npm registry.
const NPM: &str = "https://registry.npmjs.org/";
/// Docker Hub.
const DOCKER_HUB: &str = "https://registry-1.docker.io/";
/// Hosts that mean Docker Hub when they stand in `base_url`.
const DOCKER_HUB_HOSTS: &[&str] = &[
    "registry-1.docker.io",
    "docker.io",
    "index.docker.io",
    "registry.hub.docker.com",
];
/// Hosts of AWS end with this.
const AWS: &str = ".amazonaws.com";
/// Docker Hub's namespace for image names without a slash.
const DOCKER_HUB_NAMESPACE: &str = "library";

/// The one public registry of an ecosystem; `None` where there are many.
pub(super) fn public_registry(package: PackageType) -> Option<&'static str> {
    match package {
        PackageType::Pypi => Some(PYPI_FILES),
        PackageType::Npm => Some(NPM),
        PackageType::Docker => Some(DOCKER_HUB),
        PackageType::Generic | PackageType::Alpine | PackageType::Rpm | PackageType::Helm => None,
    }
}

/// Whether a pypi `base_url` means the public PyPI, whose pages and files live on two hosts.
pub(super) fn is_public_pypi(base_url: &Url) -> bool {
    base_url
        .host_str()
        .is_some_and(|host| PYPI_HOSTS.contains(&host))
}

/// The public PyPI's simple root and file root.
pub(super) fn public_pypi() -> (&'static str, &'static str) {
    (PYPI_SIMPLE, PYPI_FILES)
}

/// Whether a docker `base_url` means Docker Hub.
pub(super) fn is_docker_hub(base_url: &Url) -> bool {
    base_url
        .host_str()
        .is_some_and(|host| DOCKER_HUB_HOSTS.contains(&host))
}

/// The hosts that mean Docker Hub.
pub(crate) fn docker_hub_hosts() -> &'static [&'static str] {
    DOCKER_HUB_HOSTS
}

/// Docker Hub's registry, and the namespace of image names without a slash.
pub(super) fn docker_hub() -> (&'static str, &'static str) {
    (DOCKER_HUB, DOCKER_HUB_NAMESPACE)
}

/// Whether a host (with or without a port) is one of AWS.
pub(super) fn is_aws(endpoint: &str) -> bool {
    aws_host(endpoint).is_some()
}

fn aws_host(endpoint: &str) -> Option<&str> {
    let host = endpoint.split(':').next()?;
    // In China the hosts end with another label.
    host.strip_suffix(".cn").unwrap_or(host).strip_suffix(AWS)
}

/// The region that a host of S3 at AWS is in, where its name says so: `s3.REGION.…` (AWS General Reference, "Amazon S3 endpoints").
pub(super) fn aws_region(endpoint: &str) -> Option<&str> {
    let (service, region) = aws_host(endpoint)?.rsplit_once('.')?;
    let is_s3 = service.split('.').any(|label| label.starts_with("s3"));
    is_s3.then_some(region)
}

/// The repositories of a larder without configuration, as a configuration file.
pub fn built_in() -> &'static str {
    BUILT_IN.trim_start()
}

/// The same, with a line break in front.
pub(super) const BUILT_IN: &str = r"
remotes:
  pypi:
    type: remote
    package: pypi
    description: Python packages from PyPI
    cache: { immutable_ttl: 0, mutable_ttl: 600 }
  npm:
    type: remote
    package: npm
    description: JavaScript packages from the npm registry
    cache: { immutable_ttl: 0, mutable_ttl: 300 }
  github:
    type: remote
    package: generic
    base_url: https://github.com
    description: Release files and source archives from GitHub
    immutable_patterns:
      - '^[^/]+/[^/]+/releases/download/[^/]+/[^/]+$'
      - '^[^/]+/[^/]+/archive/.+\.(tar\.gz|zip)$'
    # No folders: what the site has there is its own pages.
    deny_patterns: ['(^|/)$']
    cache: { immutable_ttl: 0, mutable_ttl: 3600 }
  prometheus-community:
    type: remote
    package: helm
    base_url: https://prometheus-community.github.io/helm-charts
    description: Helm charts for Prometheus and what belongs to it
    link_hosts: [github.com]
    cache: { immutable_ttl: 0, mutable_ttl: 3600 }
  ingress-nginx:
    type: remote
    package: helm
    base_url: https://kubernetes.github.io/ingress-nginx
    description: Helm charts of the NGINX ingress controller
    link_hosts: [github.com]
    cache: { immutable_ttl: 0, mutable_ttl: 3600 }
  dockerhub:
    type: remote
    package: docker
    description: Container images from Docker Hub
    cache: { immutable_ttl: 0, mutable_ttl: 300 }
  ghcr:
    type: remote
    package: docker
    base_url: https://ghcr.io
    description: Container images from the GitHub registry
    cache: { immutable_ttl: 0, mutable_ttl: 300 }
  quay:
    type: remote
    package: docker
    base_url: https://quay.io
    description: Container images from Quay
    cache: { immutable_ttl: 0, mutable_ttl: 300 }
  alpine:
    type: remote
    package: alpine
    base_url: https://dl-cdn.alpinelinux.org/alpine
    description: Alpine Linux packages
    immutable_patterns: ['\.apk$']
    cache: { immutable_ttl: 0, mutable_ttl: 3600 }
  almalinux:
    type: remote
    package: rpm
    base_url: https://repo.almalinux.org/almalinux
    description: AlmaLinux packages
    immutable_patterns: ['\.rpm$', 'RPM-GPG-KEY[^/]*$']
    cache: { immutable_ttl: 0, mutable_ttl: 3600 }
";
