//! What is said of a repository that does not exist: which ones are called much the same, or where the one of that name is.

use larder_core::{
    ErrorCode, Fault, FaultKind, PackageType, Repository, RepositoryKind, RepositoryName,
};

use crate::backend::Backend;

/// The code of such a fault.
pub(crate) const CODE: ErrorCode = ErrorCode::UnknownRepository;
/// Most names that are offered.
const MOST: usize = 3;

/// There is no repository of that name, or not where it was asked for. `docker`: whether only those would do.
pub(crate) fn unknown<B: Backend>(backend: &B, name: &str, docker: bool) -> Fault {
    let message = match backend.repository(name) {
        Some(other) if docker && other.package != PackageType::Docker => {
            format!(
                "{name} is a {} repository and holds no images: it is at {}",
                other.package.as_str(),
                place(&other)
            )
        }
        Some(other) => format!("the repository {name} is at {}", place(&other)),
        None => absent(backend, name, docker),
    };
    Fault {
        repository: Some(name.to_owned()),
        ..Fault::new(FaultKind::NotFound, CODE, message)
    }
}

/// Where a repository is, below larder's address.
fn place(repository: &Repository) -> String {
    let name = &repository.name;
    match (repository.kind(), repository.package) {
        (_, PackageType::Docker) => format!("/v2/{name}"),
        (RepositoryKind::Virtual, _) => format!("/api/v1/virtual/{name}"),
        (RepositoryKind::Remote | RepositoryKind::Local, _) => format!("/api/v1/remote/{name}"),
    }
}

fn absent<B: Backend>(backend: &B, name: &str, docker: bool) -> String {
    // What can be no name at all is not repeated.
    let Ok(parsed) = RepositoryName::parse(name) else {
        return "there is no repository of that name; GET / lists the repositories".to_owned();
    };
    let all = backend.repositories();
    let names = all
        .iter()
        .filter(|other| !docker || other.package == PackageType::Docker)
        .map(|other| other.name.as_str());
    match &*nearest(name, names) {
        [] => format!("there is no repository {parsed}; GET / lists the repositories"),
        near => format!(
            "there is no repository {parsed}; the nearest is {} (GET / lists all)",
            near.join(" or ")
        ),
    }
}

/// The names that somebody may have meant, the likeliest first; none that differs widely.
fn nearest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let lower = typed.to_ascii_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| Some((distance(&lower, name)?, name)))
        .collect();
    near.sort_unstable();
    // Beside one that is hardly mistyped, the others are none.
    let best = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter()
        .take_while(|(distance, _)| *distance <= best + 1)
        .take(MOST)
        .map(|(_, name)| name)
        .collect()
}

/// How far a name is from what was typed; `None`: too far. One that is a word of the other is near (`pypi` and `pypi-remote`).
fn distance(typed: &str, name: &str) -> Option<usize> {
    let known = name.to_ascii_lowercase();
    let edits = strsim::damerau_levenshtein(typed, &known);
    let longer = typed.len().max(known.len());
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let in_disorder = edits == 2 && letters(typed) == letters(&known);
    if (edits <= (longer / 3).clamp(1, 3) || in_disorder) && edits < longer {
        return Some(edits);
    }
    let has_word = |text: &str, word: &str| {
        word.len() > 2 && text.split(['-', '_', '.']).any(|part| part == word)
    };
    (has_word(typed, &known) || has_word(&known, typed)).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 8] = [
        "pypi",
        "npm",
        "github",
        "dockerhub",
        "ghcr",
        "quay",
        "alpine",
        "team-npm",
    ];

    #[test]
    fn what_is_mistyped_is_found_and_what_is_something_else_is_not() {
        for (typed, want) in [
            ("pipy", &["pypi"][..]),
            ("PyPI", &["pypi"]),
            ("nmp", &["npm"]),
            ("npm-remote", &["npm"]),
            ("docker-hub", &["dockerhub"]),
            ("dockrhub", &["dockerhub"]),
            ("alpin", &["alpine"]),
            ("gihtub", &["github"]),
            ("team", &["team-npm"]),
            ("maven-central", &[]),
            ("x", &[]),
            ("", &[]),
            ("conda", &[]),
            ("ruby", &[]),
        ] {
            assert_eq!(nearest(typed, NAMES.into_iter()), want, "{typed}");
        }
    }
}
