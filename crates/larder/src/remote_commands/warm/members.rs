//! Virtual repositories: whose the files are that a merged index names, and whose jobs fetch them.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::{ArtifactPath, RepositoryName};
use url::Url;

use super::places::{Astray, MEMBER, RULES, usable};

/// What one repository's jobs fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) repository: String,
    /// What stands before its paths in those of the repository that was named: nothing if that is itself.
    pub(super) before: String,
    /// Decoded paths below it.
    pub(super) paths: Vec<String>,
}

/// The decoded path below a virtual repository that a link of its index means: `_m/MEMBER/PATH`. Links lead to the member's own path, or to that.
///
/// # Errors
/// It leads to no member.
pub(super) fn path_of_link(text: &str) -> Result<String, Astray> {
    let elsewhere = || Astray::Elsewhere("it leads to no member of it".to_owned());
    let url = Url::parse(text).map_err(|_| elsewhere())?;
    if url.query().is_some() {
        let why = "it has a query; jobs fetch paths without one";
        return Err(Astray::Unusable(why.to_owned()));
    }
    let behind = |root: &str| Some(url.path().split_once(root)?.1);
    let below = behind("/api/v1/remote/").or_else(|| {
        let below = behind("/api/v1/virtual/")?;
        below.split_once('/')?.1.strip_prefix(MEMBER)
    });
    let (member, path) = below
        .and_then(|below| below.split_once('/'))
        .ok_or_else(elsewhere)?;
    let member = RepositoryName::parse(member).map_err(|_| elsewhere())?;
    let path = usable(
        ArtifactPath::parse(path, RULES),
        "it is the repository itself",
    )?;
    Ok(format!("{MEMBER}{member}/{path}"))
}

/// The paths of a repository by the one whose jobs fetch them: itself, or a virtual one's members.
pub(super) fn shares(repository: &str, is_virtual: bool, paths: BTreeSet<String>) -> Vec<Share> {
    let mut shares: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths {
        let of_member = path.strip_prefix(MEMBER).filter(|_| is_virtual);
        match of_member.and_then(|path| path.split_once('/')) {
            Some((member, path)) => shares
                .entry(member.to_owned())
                .or_default()
                .push(path.to_owned()),
            None => shares.entry(repository.to_owned()).or_default().push(path),
        }
    }
    let share = |(name, paths): (String, Vec<String>)| Share {
        before: if is_virtual {
            format!("{MEMBER}{name}/")
        } else {
            String::new()
        },
        repository: name,
        paths,
    };
    shares.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_a_merged_index_is_a_member_s() {
        let at = "https://larder.example.com/cache/api/v1";
        for (link, path) in [
            ("remote/team/demo-1.0.0.tgz", "_m/team/demo-1.0.0.tgz"),
            ("remote/team/a%20b/c%2Bd.tgz", "_m/team/a b/c+d.tgz"),
            (
                "virtual/all/_m/team/demo-1.0.0.tgz",
                "_m/team/demo-1.0.0.tgz",
            ),
        ] {
            assert_eq!(
                path_of_link(&format!("{at}/{link}")).as_deref(),
                Ok(path),
                "{link}"
            );
        }
        for link in [
            "remote/team/",
            "remote/team",
            "virtual/all/demo-1.0.0.tgz",
            "remote/team/a?b",
            "remote/te am/a",
        ] {
            path_of_link(&format!("{at}/{link}")).expect_err(link);
        }
        path_of_link("https://charts.example.com/demo-1.0.0.tgz").expect_err("no link of larder's");
    }

    #[test]
    fn each_member_has_its_share() {
        let paths = ["_m/b/x", "_m/a/y", "_m/b/dir/z"].map(str::to_owned);
        let share = |repository: &str, before: &str, paths: &[&str]| Share {
            repository: repository.to_owned(),
            before: before.to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        assert_eq!(
            shares("all", true, paths.clone().into()),
            [
                share("a", "_m/a/", &["y"]),
                share("b", "_m/b/", &["dir/z", "x"])
            ]
        );
        // A remote may have a folder of this name.
        assert_eq!(
            shares("files", false, paths.into()),
            [share("files", "", &["_m/a/y", "_m/b/dir/z", "_m/b/x"])]
        );
        assert_eq!(shares("files", false, BTreeSet::new()), []);
    }
}
