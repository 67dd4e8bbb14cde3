//! The paths of one repository that its rules have kept out: in groups of those that one pattern would let in. Bounded; gone with the
//! process.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use larder_core::AccessDenied;
use tokio::time::Instant;

/// Groups of one repository. Where one more comes, the one goes that was added to the longest ago.
const MOST: usize = 1_000;
/// Examples of each.
const EXAMPLES: usize = 3;
/// A path that is longer is not looked at: nobody would read it.
const LONGEST: usize = 512;

/// What the paths of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// The rule that refused them.
    pub(crate) rule: &'static str,
    /// The place in that list of the pattern that decided.
    pub(crate) by: Option<usize>,
    /// Whether that ran into its step limit.
    pub(crate) is_limit: bool,
    /// The first folder.
    top: Option<Box<str>>,
    /// Folders below it.
    folders: usize,
    /// What the last segment ends with, the dot included; empty: it has no extension.
    extension: Box<str>,
}

/// The paths of a group.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) count: u64,
    pub(crate) last: Instant,
    /// The last of them.
    pub(crate) examples: Vec<String>,
}

/// What was refused of one repository since its rules were taken into use.
#[derive(Debug, Default)]
pub(crate) struct RefusedPaths(Mutex<HashMap<Shape, Group>>);

impl RefusedPaths {
    /// A path was refused.
    pub(crate) fn note(&self, path: &str, denied: &AccessDenied) {
        if path.len() > LONGEST {
            return;
        }
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = Shape::of(path, denied);
        if all.len() >= MOST && !all.contains_key(&shape) {
            let oldest = all.iter().min_by_key(|(_, group)| group.last);
            if let Some(oldest) = oldest.map(|(shape, _)| shape.clone()) {
                all.remove(&oldest);
            }
        }
        let group = all.entry(shape).or_insert_with(|| Group {
            count: 0,
            last: now,
            examples: Vec::new(),
        });
        group.count += 1;
        group.last = now;
        if !group.examples.iter().any(|example| example == path) {
            group.examples.truncate(EXAMPLES - 1);
            group.examples.insert(0, path.to_owned());
        }
    }

    /// Up to so many groups, those first of which there was most.
    pub(crate) fn most(&self, limit: usize) -> Vec<(Shape, Group)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups: Vec<(&Shape, &Group)> = all.iter().collect();
        groups.sort_by_key(|(_, group)| {
            (
                std::cmp::Reverse(group.count),
                std::cmp::Reverse(group.last),
            )
        });
        let groups = groups.into_iter().take(limit);
        groups
            .map(|(shape, group)| (shape.clone(), group.clone()))
            .collect()
    }
}

impl Shape {
    fn of(path: &str, denied: &AccessDenied) -> Self {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folders = folders.split('/').filter(|folder| !folder.is_empty());
        let top = folders.next().map(Into::into);
        Self {
            rule: denied.rule,
            by: denied.pattern,
            is_limit: denied.pattern_limit,
            top,
            folders: folders.count(),
            extension: extension(name).into(),
        }
    }

    /// A regular expression that matches the paths of the group, and others like them.
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = "^".to_owned();
        if let Some(top) = &self.top {
            escape(top, &mut pattern);
            pattern.push('/');
        }
        match self.folders {
            0 => {}
            1 => pattern.push_str("[^/]+/"),
            more => {
                // Writing into a text cannot fail.
                let _ = write!(pattern, "(?:[^/]+/){{{more}}}");
            }
        }
        pattern.push_str("[^/]*");
        escape(&self.extension, &mut pattern);
        pattern.push('$');
        pattern
    }
}

/// What a file's name ends with: `.tar.gz`, `.whl`; not what is a part of a version.
fn extension(name: &str) -> &str {
    let ending = |name: &str| {
        let dot = name.rfind('.').filter(|dot| *dot > 0)?;
        let after = &name[dot + 1..];
        let is_word = (1..=10).contains(&after.len())
            && after.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && after.bytes().any(|byte| byte.is_ascii_alphabetic());
        is_word.then_some(dot)
    };
    let Some(mut dot) = ending(name) else {
        return "";
    };
    // What is packed once more after it.
    let before = name[..dot].rfind('.').filter(|before| *before > 0);
    if let Some(before) = before.filter(|before| &name[*before..dot] == ".tar") {
        dot = before;
    }
    &name[dot..]
}

/// Appends a text that is to be matched as it is. `\<` and `\>` would be the beginning and the end of a word.
fn escape(text: &str, pattern: &mut String) {
    for character in text.chars() {
        if character.is_ascii()
            && !character.is_ascii_alphanumeric()
            && !matches!(character, '/' | '_' | '<' | '>')
        {
            if character.is_ascii_control() || character == ' ' {
                // Writing into a text cannot fail.
                let _ = write!(pattern, "\\x{:02x}", character as u32);
            } else {
                pattern.extend(['\\', character]);
            }
        } else {
            pattern.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_core::Pattern;

    use super::*;

    const UNMATCHED: AccessDenied = AccessDenied {
        rule: "immutable_patterns",
        pattern: None,
        pattern_limit: false,
    };

    #[test]
    fn a_group_s_pattern_matches_what_is_in_it_and_what_is_like_it() {
        for (path, pattern, like, unlike) in [
            ("a.whl", r"^[^/]*\.whl$", "b.whl", "x/a.whl"),
            (
                "v1.2/tool.tar.gz",
                r"^v1\.2/[^/]*\.tar\.gz$",
                "v1.2/b.tar.gz",
                "v1x2/b.tar.gz",
            ),
            (
                "dists/a/b/Release",
                r"^dists/(?:[^/]+/){2}[^/]*$",
                "dists/c/d/InRelease",
                "dists/a/Release",
            ),
            (
                "p/q/c++-1.0.zip",
                r"^p/[^/]+/[^/]*\.zip$",
                "p/r/x.zip",
                "p/q/x.zip2",
            ),
            ("(a b)/[c]", r"^\(a\x20b\)/[^/]*$", "(a b)/d", "(a  b)/d"),
            ("a$|^/x.y", r"^a\$\|\^/[^/]*\.y$", "a$|^/z.y", "a/z.y"),
            ("été/über.näh", r"^été/[^/]*$", "été/x", "ete/x"),
            ("tool-1.2.3", r"^[^/]*$", "x", "x/y"),
            ("a-b/c", r"^a\-b/[^/]*$", "a-b/d", "ab/d"),
            ("<s>/f.w", r"^<s>/[^/]*\.w$", "<s>/g.w", "s/f.w"),
        ] {
            let shape = Shape::of(path, &UNMATCHED);
            assert_eq!(shape.pattern(), pattern, "{path}");
            let compiled = Pattern::compile(&shape.pattern()).unwrap();
            let matches = |path| compiled.matches(path).unwrap();
            assert!(matches(path) && matches(like) && !matches(unlike), "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn groups_are_counted_and_bounded() {
        let refused = RefusedPaths::default();
        for path in [
            "a/1.zip", "a/2.zip", "a/2.zip", "a/3.zip", "a/4.zip", "b.txt",
        ] {
            refused.note(path, &UNMATCHED);
        }
        let most = refused.most(9);
        assert_eq!(most.len(), 2);
        assert_eq!((most[0].1.count, most[1].1.count), (5, 1));
        assert_eq!(most[0].1.examples, ["a/4.zip", "a/3.zip", "a/2.zip"]);
        refused.note(&"x".repeat(LONGEST + 1), &UNMATCHED);
        for n in 0..MOST {
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
            refused.note(&format!("{n}/x"), &UNMATCHED);
        }
        let all = refused.most(MOST * 2);
        assert_eq!(all.len(), MOST);
        assert!(
            all.iter().all(|(_, group)| group.count == 1),
            "the old ones have gone"
        );
    }
}
