//! Package names and versions, and the conventional path of a tarball. Knows the grammar, no endpoint and no document.

/// Longest package name, scope included.
const MAX_NAME: usize = 214;
/// Longest version or tag.
const MAX_VERSION: usize = 256;

/// A package name in its canonical, decoded form: `name` or `@scope/name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackageName<'p>(&'p str);

impl<'p> PackageName<'p> {
    /// Checks the grammar: at most 214 bytes, one optional scope, characters that a URL holds as they are, no leading dot;
    /// without a scope no leading underscore either. Upper case is legal: old packages have it, and their names differ from
    /// the lower-case ones (docs/reference/protocols/npm.md, section 5).
    pub(super) fn parse(name: &'p str) -> Option<Self> {
        let legal = match name.strip_prefix('@') {
            Some(scoped) => scoped
                .split_once('/')
                .is_some_and(|(scope, base)| is_part(scope) && is_part(base)),
            // One package is named `-`, as the first segment of all endpoints is.
            None => is_part(name) && !name.starts_with('_') && !is_reserved(name),
        };
        (legal && name.len() <= MAX_NAME).then_some(Self(name))
    }

    /// `name` or `@scope/name`.
    pub(super) fn as_str(self) -> &'p str {
        self.0
    }

    /// The name without its scope.
    pub(super) fn base(self) -> &'p str {
        self.0.split_once('/').map_or(self.0, |(_, base)| base)
    }

    /// As it is sent upstream where the name is one segment: `@scope%2fname`, which some registries insist on.
    pub(super) fn encoded(self) -> String {
        self.0.replacen('/', "%2f", 1)
    }

    /// `{name}/-/{base}-{version}.tgz`, the layout that clients' lockfiles leave the host out of. It needs no
    /// percent-encoding if [`is_version`].
    pub(super) fn tarball(self, version: &str) -> String {
        let base = self.base();
        let mut path = String::with_capacity(self.0.len() + base.len() + version.len() + 8);
        for part in [self.0, "/-/", base, "-", version, ".tgz"] {
            path.push_str(part);
        }
        path
    }

    /// The version in a tarball's file name; `None` if the file is not one of this package's.
    pub(super) fn version_of(self, file: &str) -> Option<&str> {
        let version = file
            .strip_prefix(self.base())?
            .strip_prefix('-')?
            .strip_suffix(".tgz")?;
        is_version(version).then_some(version)
    }
}

/// `encodeURIComponent(part) === part`, and no leading dot.
fn is_part(part: &str) -> bool {
    let legal = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')'
            )
    };
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(legal)
}

/// Names that no registry gives away: a browser asks for the one, every project has a folder of the other.
fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case("favicon.ico") || name.eq_ignore_ascii_case("node_modules")
}

/// Whether a text is a version as registries hold them: `1.2.3`, then anything that SemVer's pre-release and build parts
/// are made of (old packages lack the hyphen: `1.0.0beta`).
pub(super) fn is_version(text: &str) -> bool {
    let mut rest = text;
    for separator in [Some('.'), Some('.'), None] {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return false;
        }
        rest = rest.get(digits..).unwrap_or_default();
        if let Some(separator) = separator {
            let Some(after) = rest.strip_prefix(separator) else {
                return false;
            };
            rest = after;
        }
    }
    text.len() <= MAX_VERSION
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+'))
}

/// Whether a text can stand where a request names a version or a tag. Not `-…`: registries keep that for endpoints.
pub(super) fn is_version_or_tag(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()+=:@,;$&".contains(&b);
    !text.is_empty()
        && text.len() <= MAX_VERSION
        && !text.starts_with('-')
        && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_grammar() {
        for name in [
            "express",
            "-",
            "@babel/core",
            "JSONStream",
            "a.b_c-d~e",
            "old!pkg('x')*",
            "@s/_n",
            "0",
            "a-",
            &"a".repeat(214),
        ] {
            assert!(PackageName::parse(name).is_some(), "{name}");
        }
        for name in [
            "",
            ".hidden",
            "_private",
            "@",
            "@s",
            "@s/",
            "@/n",
            "@s/.n",
            "@.s/n",
            "@a/b/c",
            "a/b",
            "a b",
            "a%b",
            "\u{e4}",
            "a\\b",
            "a:b",
            "a@b",
            "@s/@n",
            "favicon.ico",
            "node_modules",
            &"a".repeat(215),
            &format!("@s/{}", "n".repeat(212)),
        ] {
            assert!(PackageName::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn tarballs_of_scoped_packages_are_named_without_the_scope() {
        let core = PackageName::parse("@babel/core").unwrap();
        assert_eq!(core.encoded(), "@babel%2fcore");
        assert_eq!(core.tarball("7.26.0"), "@babel/core/-/core-7.26.0.tgz");
        assert_eq!(
            PackageName::parse("express").unwrap().tarball("4.18.2"),
            "express/-/express-4.18.2.tgz"
        );
    }

    #[test]
    fn a_tarball_must_belong_to_its_package() {
        let react = PackageName::parse("react").unwrap();
        assert_eq!(react.version_of("react-18.2.0.tgz"), Some("18.2.0"));
        assert_eq!(
            react.version_of("react-18.0.0-rc.1+b.7.tgz"),
            Some("18.0.0-rc.1+b.7")
        );
        for file in [
            "react-dom-18.2.0.tgz",
            "vue-1.0.0.tgz",
            "react-.tgz",
            "react-18.tgz",
            "react-18.2.tgz",
            "react-latest.tgz",
            "react-18.2.0.zip",
            "react-18.2.0",
        ] {
            assert_eq!(react.version_of(file), None, "{file}");
        }
    }

    #[test]
    fn versions() {
        for text in [
            "1.0.0",
            "0.0.1-security",
            "1.0.0-alpha.1+x.y",
            "1.0.0beta",
            "2024.01.09",
        ] {
            assert!(is_version(text), "{text}");
        }
        for text in [
            "",
            "1",
            "1.0",
            "v1.0.0",
            "latest",
            "1.0.0/x",
            "1.0.0 ",
            "1.0.0%2f",
            "1..0",
            ".1.0.0",
            "__proto__",
            "1.0.0\u{e9}",
        ] {
            assert!(!is_version(text), "{text}");
        }
    }

    #[test]
    fn tags() {
        assert!(
            is_version_or_tag("latest")
                && is_version_or_tag("next-11")
                && is_version_or_tag("1.0.0+build")
        );
        for text in ["", "-", "-rev", "a/b", "a b", "a?b", "a#b", "a%b", "\u{e4}"] {
            assert!(!is_version_or_tag(text), "{text}");
        }
    }
}
