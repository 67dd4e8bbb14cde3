//! Lock files of poetry, pdm, pipenv and Bun: as the real tools have written them where they stand in `testdata/`, else as their
//! documentation has them.

use super::*;

/// Those of poetry and pipenv, which state digests and no addresses.
#[test]
fn python_s_lock_files_without_addresses_name_the_same_files() {
    for (format, text) in [
        (Format::Poetry, include_str!("../testdata/poetry.lock")),
        (Format::Pipfile, include_str!("../testdata/Pipfile.lock")),
    ] {
        let lock = of(format, text);
        let dotted = match format {
            Format::Poetry => "pantry-dotted-name==1.0 1",
            _ => "pantry.dotted-name==1.0 1",
        };
        let expected = [
            "pantry-base==1.0 2",
            "pantry-demo==1.1 1",
            dotted,
            "pantry-source==1.0 1",
        ];
        assert_eq!(named(&lock), expected, "{format:?}");
        assert!(lock.rest.is_empty(), "{format:?}: {:?}", lock.rest);
        let Wanted::Project { files, .. } = &lock.items[1].wanted else {
            panic!("{format:?}")
        };
        let digest = "2e3af904a395f856844920ca877d7f6a8b7bb00146b1cfd16395d8b1bb55ce1c";
        assert_eq!(files[0].sha256.as_deref(), Some(digest), "{format:?}");
        assert_eq!(files[0].url, None, "{format:?}");
    }
}

/// As the documentation of these tools has them: what comes from elsewhere, and forms of earlier versions.
#[test]
fn other_forms_of_python_s_lock_files() {
    let poetry = "[[package]]\nname = \"a\"\nversion = \"1\"\n\n[[package]]\nname = \"g\"\nversion = \"2\"\nfiles = []\n\n\
        [package.source]\ntype = \"git\"\nurl = \"https://git.example.com/g\"\n\n[[package]]\nname = \"u\"\nversion = \"3\"\n\n\
        [package.source]\ntype = \"url\"\nurl = \"https://files.example.com/u-3.tar.gz\"\n\n[metadata]\nlock-version = \"1.1\"\n\n\
        [metadata.files]\na = [\n    {file = \"a-1.tar.gz\", hash = \"sha256:aa\"},\n]\n";
    let lock = of(Format::Poetry, poetry);
    assert_eq!(
        named(&lock),
        ["a==1 1", "https://files.example.com/u-3.tar.gz"]
    );
    assert_eq!(rest(&lock), [("g", false)]);
    let pdm = "[metadata]\ngroups = [\"default\"]\nlock_version = \"4.5.0\"\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n\
        files = [\n    {file = \"a-1.tar.gz\", hash = \"sha256:AA\"},\n    {file = \"a-1-py3-none-any.whl\", hash = \"sha256:bb\"},\n]\n\n\
        [[package]]\nname = \"a\"\nversion = \"1\"\nextras = [\"x\"]\ndependencies = [\"a==1\"]\n\
        files = [\n    {file = \"a-1.tar.gz\", hash = \"sha256:AA\"},\n    {file = \"a-1-py3-none-any.whl\", hash = \"sha256:bb\"},\n]\n\n\
        [[package]]\nname = \"s\"\nversion = \"2\"\n\
        files = [\n    {url = \"https://files.example.com/s-2.whl\", hash = \"sha256:cc\"},\n]\n\n\
        [[package]]\nname = \"g\"\nversion = \"3\"\ngit = \"https://git.example.com/g\"\n\n\
        [[package]]\nname = \"u\"\nversion = \"4\"\nurl = \"https://files.example.com/u-4.tar.gz\"\n";
    let lock = of(Format::Pdm, pdm);
    assert_eq!(
        named(&lock),
        ["a==1 2", "s==2 1", "https://files.example.com/u-4.tar.gz"]
    );
    assert_eq!(rest(&lock), [("g", false)]);
    let Wanted::Project { files, .. } = &lock.items[0].wanted else {
        panic!("a project")
    };
    assert_eq!(files[0].sha256.as_deref(), Some("aa"));
    let older = "[metadata]\nlock_version = \"3.1\"\n\n[metadata.files]\n\"a 1\" = [\n    {file = \"a-1.tar.gz\", hash = \"sha256:aa\"},\n]\n\n\
        [[package]]\nname = \"a\"\nversion = \"1\"\n";
    assert_eq!(named(&of(Format::Pdm, older)), ["a==1 1"]);
    let pipfile = r#"{"_meta": {}, "default": {"a": {"version": "==1", "hashes": ["sha256:aa", "md5:bb"]},
        "g": {"git": "https://git.example.com/g", "ref": "x"}, "u": {"file": "https://files.example.com/u-1.whl"},
        "any": {"version": "*"}}, "develop": {"a": {"version": "==1", "hashes": ["sha256:aa", "md5:bb"]}}, "docs": {"d": {"version": "===2"}}}"#;
    let lock = of(Format::Pipfile, pipfile);
    assert_eq!(
        named(&lock),
        ["a==1 1", "https://files.example.com/u-1.whl", "d==2 0"]
    );
    assert_eq!(rest(&lock), [("any", true), ("g", false)]);
    for (format, text) in [
        (Format::Poetry, "[[package]]\nname = \"a\"\n"),
        (Format::Pdm, "[metadata]\nlock-version = \"2.1\"\n"),
        (Format::Pipfile, "{\"default\": {}}"),
        (Format::Pipfile, "{\"_meta\": {}, \"default\": []}"),
        (Format::Bun, "{\"packages\": {}}"),
        (
            Format::Bun,
            "{\"lockfileVersion\": 1, \"packages\": {\"a\": {}}}",
        ),
    ] {
        let unreadable = format.read("file", text).expect_err("refused");
        assert!(unreadable.line <= 2, "{format:?}: {unreadable:?}");
    }
}

/// Commas behind the last ones, an alias, what a package brings along, and what is from no registry.
#[test]
fn packages_of_a_bun_lock() {
    let text = r#"{
  "lockfileVersion": 1,
  "workspaces": {
    "": { "name": "app", "dependencies": { "@pantry/spoon": "^1.0.0", "other": "npm:pantry-jar@2.0.0", }, },
    "packages/own": { "name": "own", "version": "1.0.0", },
  },
  "packages": {
    "@pantry/spoon": ["@pantry/spoon@1.0.0", "", { "dependencies": { "pantry-jam": "^1.0.0" } }, "sha512-TLm4=="],

    "@pantry/spoon/pantry-jam": ["pantry-jam@1.1.0", "https://registry.example.com/pantry-jam/-/pantry-jam-1.1.0.tgz", {}, "sha512-ti=="],

    "elsewhere": ["elsewhere@https://files.example.com/elsewhere.tgz", {}],

    "from-git": ["from-git@github:pantry/from-git#6609a88", {}, "pantry-from-git-6609a88"],

    "other": ["pantry-jar@2.0.0", "https://registry.example.com/", { "bin": "cli.js" }, "sha512-Q2=="],

    "own": ["own@workspace:packages/own"],
  }
}
"#;
    let lock = of(Format::Bun, text);
    assert_eq!(
        named(&lock),
        [
            "@pantry/spoon@1.0.0",
            "pantry-jam@1.1.0 https://registry.example.com/pantry-jam/-/pantry-jam-1.1.0.tgz",
            "https://files.example.com/elsewhere.tgz",
            "pantry-jar@2.0.0",
        ]
    );
    assert_eq!(
        rest(&lock),
        [("from-git@github:pantry/from-git#6609a88", false)]
    );
    assert_eq!(lock.items[1].line, 10);
}
