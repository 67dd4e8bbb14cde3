//! What a repository says of virtual ones: of itself as one, and of itself as a member. What must hold between repositories stands in
//! `members.rs`.

use larder_core::{
    MemberUrls, PackageType, RepositoryKind, RepositoryName, ReservedNames, VirtualSettings,
};

use super::diagnostic::{Place, Report};
use super::fields::Section;

/// `reserved`: names that are this repository's, whether it has them or not.
pub(super) fn reserved(
    section: &Section<'_>,
    package: PackageType,
    report: &mut Report,
) -> ReservedNames {
    let items = section.list("reserved", report).unwrap_or_default();
    if let (Some((_, place)), PackageType::Generic) = (items.first(), package) {
        let key = section.path("reserved");
        report.warning(
            *place,
            format!("`{key}` has no effect: files of a generic repository belong to no package"),
        );
    }
    match ReservedNames::parse(items.iter().map(|(text, _)| *text)) {
        Ok(reserved) => reserved,
        Err((at, error)) => {
            if let Some((text, place)) = items.get(at) {
                let text: String = text.chars().take(80).collect();
                report.error(
                    *place,
                    format!("`{}`: `{text}`: {error}", section.path("reserved")),
                );
            }
            ReservedNames::default()
        }
    }
}

/// What a virtual repository is made of, and what its index is like.
pub(super) fn virtual_settings(
    section: &Section<'_>,
    members: Vec<RepositoryName>,
    report: &mut Report,
) -> VirtualSettings {
    let places = &[
        ("member", MemberUrls::Member),
        ("virtual", MemberUrls::Virtual),
    ];
    VirtualSettings {
        members,
        fail_closed: section.truth("fail_closed", report).unwrap_or(false),
        member_urls: section
            .word("member_urls", places, report)
            .unwrap_or_default(),
        default_local: default_local(section, report),
    }
}

/// `default_local`: the name alone. Whether it may be it is seen once all repositories are known.
fn default_local(section: &Section<'_>, report: &mut Report) -> Option<RepositoryName> {
    let (text, place) = section.text("default_local", report)?;
    RepositoryName::parse(text)
        .map_err(|error| report.error(place, error.to_string()))
        .ok()
}

/// `members`, each with its place. There are none unless the repository is virtual.
pub(super) fn members(
    section: &Section<'_>,
    kind: RepositoryKind,
    place: &Place,
    report: &mut Report,
) -> (Vec<RepositoryName>, Vec<Place>) {
    if kind != RepositoryKind::Virtual {
        return Default::default();
    }
    let (mut names, mut places) = (Vec::new(), Vec::new());
    let members = section.list("members", report);
    if members.as_ref().is_none_or(Vec::is_empty) {
        report.error(
            place,
            format!(
                "a virtual repository needs `{}`: the names of the repositories it merges",
                section.path("members")
            ),
        );
    }
    for (text, place) in members.unwrap_or_default() {
        match RepositoryName::parse(text) {
            Ok(name) if names.contains(&name) => {
                report.error(
                    place,
                    format!("`{text}` stands twice in `{}`", section.path("members")),
                );
            }
            Ok(name) => {
                names.push(name);
                places.push(place.clone());
            }
            Err(error) => report.error(place, error.to_string()),
        }
    }
    (names, places)
}
