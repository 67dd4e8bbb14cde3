//! `pnpm-lock.yaml`, in the forms of its versions.

use super::*;

#[test]
fn pnpm_s_older_forms() {
    for text in [
        "lockfileVersion: 5.4\npackages:\n  /a/1.0.0_react@17.0.2:\n    resolution: {integrity: x}\n  /@s/b/2.0.0:\n    resolution: {integrity: y}\n",
        "lockfileVersion: 5.0\npackages:\n  /a/1.0.0/@s/react@17.0.2+b@1.0.0:\n    resolution: {integrity: x}\n  /@s/b/2.0.0/a@1.0.0:\n    resolution: {integrity: y}\n",
        "lockfileVersion: '6.0'\npackages:\n  /a@1.0.0(react@17.0.2):\n    resolution: {integrity: x}\n  /@s/b@2.0.0:\n    resolution: {integrity: y}\n",
        "lockfileVersion: '9.0'\npackages:\n  a@1.0.0:\n    resolution: {integrity: x}\n  '@s/b@2.0.0':\n    resolution: {integrity: y}\n",
    ] {
        assert_eq!(
            named(&of(Format::Pnpm, text)),
            ["a@1.0.0", "@s/b@2.0.0"],
            "{text}"
        );
    }
    let text = "lockfileVersion: '9.0'\npackages:\n  t@https://files.example.com/t.tgz:\n    resolution: {tarball: https://files.example.com/t.tgz}\n    version: 1.0.0\n  \
                g@git+https://git.example.com/g.git#01:\n    resolution: {type: git, repo: https://git.example.com/g.git, commit: '01'}\n  \
                d@file:d:\n    resolution: {directory: d, type: directory}\n";
    let lock = of(Format::Pnpm, text);
    assert_eq!(named(&lock), ["t@1.0.0 https://files.example.com/t.tgz"]);
    assert_eq!(rest(&lock).len(), 2, "{:?}", lock.rest);
    let text = "lockfileVersion: 5.3\npackages:\n  file:f.tgz:\n    resolution: {tarball: file:f.tgz}\n    name: f\n    version: 1.0.0\n  \
                /r/1.0.0:\n    resolution: {tarball: r/-/other.tgz}\n";
    let lock = of(Format::Pnpm, text);
    assert_eq!(rest(&lock), [("file:f.tgz", false)]);
    assert_eq!(named(&lock), ["r@1.0.0 r/-/other.tgz"], "of the registry");
}

/// A scope may look like a host, and a host need not.
#[test]
fn pnpm_s_scopes_and_registries_are_told_apart() {
    for text in [
        "lockfileVersion: '9.0'\npackages:\n  '@vue.ts/common@1.0.0': {resolution: {integrity: x}}\n",
        "lockfileVersion: '6.0'\npackages:\n  /@vue.ts/common@1.0.0: {resolution: {integrity: x}}\n",
        "lockfileVersion: '6.0'\npackages:\n  localhost+4873/@vue.ts/common@1.0.0: {resolution: {integrity: x}}\n",
        "lockfileVersion: 5.4\npackages:\n  /@vue.ts/common/1.0.0: {resolution: {integrity: x}}\n",
        "lockfileVersion: 5.4\npackages:\n  registry.example.com/@vue.ts/common/1.0.0: {resolution: {integrity: x}}\n",
    ] {
        let lock = of(Format::Pnpm, text);
        assert_eq!(named(&lock), ["@vue.ts/common@1.0.0"], "{text}");
    }
    let text = "lockfileVersion: '6.0'\npackages:\n  localhost+4873/a@1.0.0: {resolution: {integrity: x}}\n  \
                127.0.0.1+4873/b@1.0.0(@s.t/c@1.0.0): {resolution: {integrity: x}}\n  registry/d@1.0.0: {resolution: {integrity: x}}\n";
    let lock = of(Format::Pnpm, text);
    assert_eq!(named(&lock), ["a@1.0.0", "b@1.0.0", "d@1.0.0"]);
}

/// Where it is pinned by the project, pnpm itself has a document before the project's.
#[test]
fn pnpm_s_own_packages_are_taken_too() {
    let one = |name: &str| {
        format!(
            "---\nlockfileVersion: '9.0'\npackages:\n  {name}@1.0.0:\n    resolution: {{integrity: x}}\n"
        )
    };
    let lock = of(Format::Pnpm, &format!("{}{}", one("pnpm"), one("a")));
    assert_eq!(named(&lock), ["pnpm@1.0.0", "a@1.0.0"]);
    assert_eq!(lock.items[1].line, 9, "of the whole file");
    let empty = format!("---\n{}", one("a"));
    assert_eq!(named(&of(Format::Pnpm, &empty)), ["a@1.0.0"]);
}
