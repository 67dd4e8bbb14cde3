//! The paths of what lock files name. Where they state addresses, these are paths; where they state versions and digests alone, the
//! upstream's own index says which files these are.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use super::super::server::Server;
use super::super::shown::{items, text};
use super::members::path_of_link;
use super::places::{Astray, Places, decoded_path};
use super::read::Source;
use super::{Failure, Plan, Unheld, place};
use crate::lockfiles::{
    FileHint, Format, Item, Wanted, chart_addresses, image_path, is_version, of_file,
};

/// Indexes that are asked for at once.
const AT_ONCE: usize = 4;

/// What has become of something that is named.
enum Found {
    Paths(Vec<String>),
    /// Some paths, and why there are not all.
    Partly(Vec<String>, String),
    Missing(String),
    Elsewhere(String),
}

impl From<Astray> for Found {
    fn from(astray: Astray) -> Self {
        match astray {
            Astray::Elsewhere(why) => Self::Elsewhere(why),
            Astray::Unusable(why) => Self::Missing(why),
        }
    }
}

/// Whom the paths are asked of.
struct Asking<'a> {
    server: &'a Server,
    places: &'a Places,
    /// Of charts; read once.
    index: OnceCell<Result<ChartIndex, String>>,
}

/// The index of a chart repository as clients get it.
struct ChartIndex {
    url: Url,
    text: String,
    /// Members of a virtual repository that it lacks.
    skipped: Option<String>,
}

/// Finds the paths of all that the sources name.
///
/// # Errors
/// Larder does not answer, or refuses altogether.
pub(super) async fn resolve(
    server: &Server,
    places: &Places,
    sources: &[Source],
) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    for source in sources {
        for rest in &source.lock.rest {
            let unheld = Unheld {
                at: place(source, rest.line),
                what: without_secrets(&rest.what),
                why: rest.why.clone(),
            };
            if rest.is_missing {
                plan.missing.push(unheld);
            } else {
                plan.left_out.push(unheld);
            }
        }
    }
    let named = sources
        .iter()
        .flat_map(|source| source.lock.items.iter().map(move |item| (source, item)));
    let asking = &Asking {
        server,
        places,
        index: OnceCell::new(),
    };
    let asked = named.map(|(source, item)| async move {
        let found = found(asking, source.format, item).await;
        (source, item, found)
    });
    let mut found = futures_util::stream::iter(asked).buffered(AT_ONCE);
    while let Some((source, item, found)) = found.next().await {
        let unheld = |why| Unheld {
            at: place(source, item.line),
            what: described(&item.wanted),
            why,
        };
        match found {
            Found::Paths(paths) => plan.paths.extend(paths),
            Found::Partly(paths, why) => {
                plan.paths.extend(paths);
                plan.missing.push(unheld(why));
            }
            Found::Missing(why) => plan.missing.push(unheld(why)),
            Found::Elsewhere(why) => plan.left_out.push(unheld(why)),
        }
    }
    Ok(plan)
}

fn described(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Place(place) => without_secrets(place),
        Wanted::Project { name, version, .. }
        | Wanted::Package { name, version, .. }
        | Wanted::Chart { name, version, .. } => format!("{name} {version}"),
        Wanted::Image(image) => image.clone(),
    }
}

/// What is named by a URL: its query may be a secret, and what is before the host too.
fn without_secrets(text: &str) -> String {
    let shown = text.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else {
        return shown.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host..])
}

async fn found(asking: &Asking<'_>, format: Format, item: &Item) -> Found {
    let Asking { server, places, .. } = asking;
    match &item.wanted {
        // In a list, all is meant to be of the repository.
        Wanted::Place(place) if format == Format::Urls => match places.path_of(place) {
            Ok(path) => Found::Paths(vec![path]),
            Err(astray) => Found::Missing(astray.why()),
        },
        Wanted::Place(url) => match places.path_of_url(url) {
            Ok(path) => Found::Paths(vec![path]),
            Err(astray) => astray.into(),
        },
        Wanted::Project {
            name,
            version,
            files,
        } => project(server, places, (name, version), files).await,
        Wanted::Package { name, version, url } => package(places, name, version, url.as_deref()),
        Wanted::Chart {
            name,
            version,
            repository,
        } => chart(asking, (name, version), repository).await,
        Wanted::Image(image) => match image_path(image) {
            Some((name, reference)) => match places.image(name) {
                Ok(name) => Found::Paths(vec![format!("{name}/manifests/{reference}")]),
                Err(why) => Found::Missing(why),
            },
            None => Found::Missing("it is no name of an image".to_owned()),
        },
    }
}

/// A tarball is where the registry's packument says. What clients make up by themselves from name and version is there, too, if
/// anything is; the lock file may have been written with another registry.
fn package(places: &Places, name: &str, version: &str, url: Option<&str>) -> Found {
    let base = name.rsplit('/').next().unwrap_or(name);
    let usual = format!("{name}/-/{base}-{version}.tgz");
    let Some(url) = url else {
        return Found::Paths(vec![usual]);
    };
    let is_usual = |path: String| format!("/{path}").ends_with(&format!("/{usual}"));
    match places.path_of_tarball(url) {
        Ok(path) => Found::Paths(vec![path]),
        Err(_) if decoded_path(url).is_some_and(is_usual) => Found::Paths(vec![usual]),
        Err(astray) => astray.into(),
    }
}

/// Something that the upstream offers.
struct Offered {
    path: String,
    sha256: Option<String>,
}

impl Offered {
    fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// All that the upstream offers of a name.
async fn offers(server: &Server, repository: &str, name: &str) -> Result<Vec<Offered>, String> {
    let (mut offered, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut query = vec![("source", "upstream"), ("name", name), ("limit", "1000")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = server.artifacts(Some(repository), &query).await;
        let page = page.map_err(|Failure(_, message)| message)?;
        offered.extend(items(&page, "artifacts").iter().map(|artifact| {
            Offered {
                path: text(artifact, "path").to_owned(),
                sha256: artifact
                    .get("sha256")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            }
        }));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(offered),
        }
    }
}

async fn project(
    server: &Server,
    places: &Places,
    (name, version): (&str, &str),
    files: &[FileHint],
) -> Found {
    let by_address: Option<Vec<String>> = files
        .iter()
        .map(|file| places.path_of_url(file.url.as_deref()?).ok())
        .collect();
    if let Some(paths) = by_address.filter(|paths| !paths.is_empty()) {
        return Found::Paths(paths);
    }
    match offers(server, &places.repository, name).await {
        Ok(offered) => chosen(&offered, (name, version), files),
        Err(why) => Found::Missing(why),
    }
}

/// Of what is offered, the files with the digests or names that the lock file has; those of the version if it has none. Each brings the
/// metadata file that clients read first.
fn chosen(offered: &[Offered], (name, version): (&str, &str), files: &[FileHint]) -> Found {
    let wanted: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.sha256.as_deref())
        .collect();
    let names: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.url.as_deref()?.rsplit('/').next())
        .collect();
    let of_version =
        |file: &str| of_file(file, name).is_some_and(|found| is_version(found.version, version));
    let is_chosen = |one: &Offered| match &one.sha256 {
        Some(digest) if !wanted.is_empty() => wanted.contains(&**digest),
        _ if !names.is_empty() => names.contains(one.file()),
        _ => of_version(one.file()),
    };
    let is_sidecar = |one: &&Offered| one.path.ends_with(".metadata");
    let mut paths: Vec<String> = Vec::new();
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for one in offered
        .iter()
        .filter(|one| !is_sidecar(one) && is_chosen(one))
    {
        found.extend(one.sha256.as_deref());
        let beside = format!("{}.metadata", one.path);
        paths.push(one.path.clone());
        paths.extend(
            offered
                .iter()
                .any(|other| other.path == beside)
                .then_some(beside),
        );
    }
    if paths.is_empty() {
        let what = if wanted.is_empty() {
            "no file of this version"
        } else {
            "none of its files"
        };
        return Found::Missing(format!("the upstream offers {what}"));
    }
    let lacking: Vec<&str> = wanted.difference(&found).copied().collect();
    let states_digests = offered.iter().any(|one| one.sha256.is_some());
    match lacking.first() {
        Some(first) if states_digests => {
            let count = lacking.len();
            let why = format!("the upstream offers no file with {count} of its digests: {first} …");
            Found::Partly(paths, why)
        }
        _ => Found::Paths(paths),
    }
}

async fn chart(
    Asking {
        server,
        places,
        index,
    }: &Asking<'_>,
    (name, version): (&str, &str),
    repository: &str,
) -> Found {
    let is_alias = repository.starts_with('@') || repository.starts_with("alias:");
    if !is_alias && !places.is_root(repository) {
        let why = format!(
            "it comes from another repository than {} and its upstream",
            places.repository
        );
        return Found::Elsewhere(why);
    }
    let index = index.get_or_init(|| chart_index(server, places));
    let index = match index.await {
        Ok(index) => index,
        Err(why) => return Found::Missing(why.clone()),
    };
    let addresses = match chart_addresses(&index.text, name, version) {
        Ok(addresses) => addresses,
        Err(unreadable) => return Found::Missing(format!("index.yaml: {}", unreadable.message)),
    };
    if addresses.is_empty() {
        let whose = match &index.skipped {
            Some(skipped) => &*format!("the merged index, which lacks {skipped} just now,"),
            None if places.is_virtual => "the merged index",
            None => "the upstream's index",
        };
        let why = format!("{whose} has no {name} {version}");
        return if places.is_wider(repository) {
            Found::Elsewhere(format!("{why}, which may be another member's"))
        } else {
            Found::Missing(why)
        };
    }
    at_addresses(places, &index.url, addresses)
}

/// The paths that links of an index at this address mean.
fn at_addresses(places: &Places, index: &Url, addresses: Vec<String>) -> Found {
    let (mut paths, mut missing) = (Vec::new(), None);
    for address in addresses {
        let address = match index.join(&address) {
            Ok(whole) if !address.contains(char::is_control) => whole.into(),
            _ => address,
        };
        let path = if places.is_virtual {
            path_of_link(&address)
        } else {
            places.path_of_url(&address)
        };
        match path {
            Ok(path) => paths.push(path),
            Err(astray) => missing = Some(astray.why()),
        }
    }
    match missing {
        Some(why) => Found::Partly(paths, why),
        None => Found::Paths(paths),
    }
}

/// Its links lead to what larder fetches for clients.
async fn chart_index(server: &Server, places: &Places) -> Result<ChartIndex, String> {
    let kind = if places.is_virtual {
        "virtual"
    } else {
        "remote"
    };
    let path = ["api", "v1", kind, &places.repository, "index.yaml"];
    let url = server.url(&path, &[]);
    let read = async {
        let answer = server.send("GET", url.clone(), &[], None).await?;
        match answer.status() {
            200 => {
                let skipped = answer.header("x-larder-skipped").map(str::to_owned);
                Ok((answer.whole().await?, skipped))
            }
            _ => Err(server.refusal(answer).await),
        }
    };
    let (bytes, skipped) = read.await.map_err(|Failure(_, message)| message)?;
    let text = String::from_utf8(bytes).map_err(|_| "index.yaml is not in UTF-8".to_owned())?;
    Ok(ChartIndex { url, text, skipped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(all: &[(&str, Option<&str>)]) -> Vec<Offered> {
        let one = |(path, sha256): &(&str, Option<&str>)| Offered {
            path: (*path).to_owned(),
            sha256: sha256.map(str::to_owned),
        };
        all.iter().map(one).collect()
    }

    fn hint(sha256: &str) -> FileHint {
        FileHint {
            url: None,
            sha256: Some(sha256.to_owned()),
        }
    }

    #[test]
    fn files_are_chosen_by_digest_and_else_by_version() {
        let all = offered(&[
            ("p/jam_pot-1.0-py3-none-any.whl", Some("aa")),
            ("p/jam_pot-1.0-py3-none-any.whl.metadata", Some("mm")),
            ("p/jam-pot-1.0.tar.gz", Some("bb")),
            ("p/jam_pot-1.0.1-py3-none-any.whl", Some("cc")),
        ]);
        let paths = |files: &[FileHint], version| match chosen(&all, ("jam.pot", version), files) {
            Found::Paths(paths) | Found::Partly(paths, _) => paths.join(" "),
            Found::Missing(why) | Found::Elsewhere(why) => why,
        };
        let wheel = "p/jam_pot-1.0-py3-none-any.whl p/jam_pot-1.0-py3-none-any.whl.metadata";
        assert_eq!(paths(&[hint("aa")], "1.0"), wheel);
        assert_eq!(paths(&[], "1.0.0"), format!("{wheel} p/jam-pot-1.0.tar.gz"));
        assert_eq!(
            paths(&[hint("dd")], "1.0"),
            "the upstream offers none of its files"
        );
        assert_eq!(
            paths(&[], "2"),
            "the upstream offers no file of this version"
        );
        let partly = chosen(&all, ("jam.pot", "1.0"), &[hint("aa"), hint("dd")]);
        assert!(
            matches!(partly, Found::Partly(paths, why) if paths.len() == 2 && why.contains("dd"))
        );
    }

    #[test]
    fn what_is_told_of_a_url_is_no_secret() {
        for (text, told) in [
            (
                "https://u:canary@files.example.com/a?token=canary",
                "https://files.example.com/a",
            ),
            (
                "-e git+ssh://canary@git.example.com/a@1",
                "-e git+ssh://git.example.com/a@1",
            ),
            ("a/b@1", "a/b@1"),
        ] {
            assert_eq!(without_secrets(text), told);
        }
    }

    #[test]
    fn an_index_without_digests_is_asked_by_name_or_version() {
        let all = offered(&[("jam-1.0.tar.gz", None), ("jam-2.0.tar.gz", None)]);
        for hints in [
            vec![hint("aa")],
            vec![FileHint {
                url: Some("https://other.example.com/x/jam-1.0.tar.gz".to_owned()),
                sha256: Some("aa".to_owned()),
            }],
        ] {
            let found = chosen(&all, ("jam", "1.0"), &hints);
            assert!(matches!(found, Found::Paths(paths) if paths == ["jam-1.0.tar.gz"]));
        }
    }
}
