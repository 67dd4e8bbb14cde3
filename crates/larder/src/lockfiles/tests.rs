//! Lock files as the real tools have written them (`testdata/`), forms of older tools, and what is none of these.

mod pnpm;
mod poetry_pipenv_bun;
mod requirements;

use super::*;

fn of(format: Format, text: &str) -> Lock {
    format.read("file", text).expect("it can be read")
}

/// What is named, in short.
fn named(lock: &Lock) -> Vec<String> {
    let short = |item: &Item| match &item.wanted {
        Wanted::Place(place) => place.clone(),
        Wanted::Project {
            name,
            version,
            files,
        } => format!("{name}=={version} {}", files.len()),
        Wanted::Package { name, version, url } => {
            let at = url
                .as_deref()
                .map_or(String::new(), |url| format!(" {url}"));
            format!("{name}@{version}{at}")
        }
        Wanted::Chart {
            name,
            version,
            repository,
        } => format!("{name} {version} {repository}"),
        Wanted::Image(image) => image.clone(),
    };
    lock.items.iter().map(short).collect()
}

fn rest(lock: &Lock) -> Vec<(&str, bool)> {
    let rest = lock.rest.iter();
    rest.map(|rest| (&*rest.what, rest.is_missing)).collect()
}

#[test]
fn python_s_lock_files_name_the_same_files() {
    let locks = [
        (Format::Uv, include_str!("testdata/uv.lock")),
        (Format::Pylock, include_str!("testdata/pylock.toml")),
        (
            Format::Requirements,
            include_str!("testdata/requirements.txt"),
        ),
    ];
    for (format, text) in locks {
        let lock = of(format, text);
        let mut expected = vec![
            "pantry-base==1.0 2",
            "pantry-demo==1.1 1",
            "pantry-demo==3.0 1",
            "pantry-dotted-name==1.0 1",
        ];
        if format != Format::Requirements {
            expected.push("pantry-source==1.0 1");
        }
        assert_eq!(named(&lock), expected, "{format:?}");
        assert!(lock.rest.is_empty(), "{format:?}: {:?}", lock.rest);
        let Wanted::Project { files, .. } = &lock.items[1].wanted else {
            panic!("{format:?}")
        };
        let digest = "2e3af904a395f856844920ca877d7f6a8b7bb00146b1cfd16395d8b1bb55ce1c";
        assert_eq!(files[0].sha256.as_deref(), Some(digest), "{format:?}");
        let url = "https://files.example.com/packages/2e/pantry_demo-1.1-py3-none-any.whl";
        let url = (format != Format::Requirements).then_some(url);
        assert_eq!(files[0].url.as_deref(), url, "{format:?}");
        let line = text.lines().nth(lock.items[1].line - 1).unwrap_or_default();
        assert!(
            line.starts_with("[[package") || line.starts_with("pantry-demo"),
            "{line}"
        );
    }
}

#[test]
fn npm_s_lock_files_name_the_same_packages() {
    let packages = [
        "@pantry/spoon@1.0.0",
        "pantry-jam@1.1.0",
        "pantry-jar@2.0.0",
    ];
    let with_urls = [
        "@pantry/spoon@1.0.0 https://registry.example.com/@pantry/spoon/-/spoon-1.0.0.tgz",
        "pantry-jam@1.1.0 https://registry.example.com/pantry-jam/-/pantry-jam-1.1.0.tgz",
        "pantry-jar@2.0.0 https://registry.example.com/pantry-jar/-/pantry-jar-2.0.0.tgz",
    ];
    for (format, text, expected) in [
        (
            Format::Npm,
            include_str!("testdata/package-lock-1.json"),
            with_urls,
        ),
        (
            Format::Npm,
            include_str!("testdata/package-lock-2.json"),
            with_urls,
        ),
        (
            Format::Npm,
            include_str!("testdata/package-lock-3.json"),
            with_urls,
        ),
        (
            Format::Yarn,
            include_str!("testdata/yarn-1.lock"),
            with_urls,
        ),
        (Format::Yarn, include_str!("testdata/yarn-4.lock"), packages),
        (
            Format::Pnpm,
            include_str!("testdata/pnpm-lock.yaml"),
            packages,
        ),
        (
            Format::Pnpm,
            include_str!("testdata/pnpm-lock-5.yaml"),
            packages,
        ),
        (
            Format::Pnpm,
            include_str!("testdata/pnpm-lock-6.yaml"),
            packages,
        ),
    ] {
        let lock = of(format, text);
        assert_eq!(named(&lock), expected, "{format:?}");
        assert!(lock.rest.is_empty(), "{format:?}: {:?}", lock.rest);
    }
}

#[test]
fn charts_of_a_chart_lock() {
    let lock = of(Format::Chart, include_str!("testdata/Chart.lock"));
    let at = "https://charts.example.com/charts";
    let expected = [
        format!("common 1.0.0 {at}"),
        format!("demo 0.2.1+build.5 {at}"),
        format!("remote 1.0.0 {at}"),
    ];
    assert_eq!(named(&lock), expected);
    assert_eq!(lock.items[1].line, 5);
    let text = "dependencies:\n- name: a\n  repository: oci://r.example.com/charts\n  version: 1.0.0\n\
                - name: b\n  repository: file://../b\n  version: 1.0.0\n";
    let lock = of(Format::Chart, text);
    assert_eq!(rest(&lock), [("a 1.0.0", false), ("b 1.0.0", false)]);
}

#[test]
fn requirements_in_all_their_forms() {
    let text = "# a comment \\\nDemo_Pkg[extra1, extra2] == 1.0 ; python_version < '4' # why\n\
                --index-url https://index.example.com/simple\n-r more.txt\n--requirement=other/x.txt\n-rshort.txt\n-c limits.txt\n\
                other===2.0rc1 --hash sha512:00ff \\\n  --hash=sha256:AA00\n\
                third @ https://files.example.com/third-1.0.zip#sha256=00\nhttps://files.example.com/fourth-1.0.tar.gz\n\
                fifth @ git+https://git.example.com/fifth\n-e .\n./here/sixth.whl\nloose>=1.0\nstar==1.*\nbare\n";
    let lock = of(Format::Requirements, text);
    let expected = [
        "Demo_Pkg==1.0 0",
        "other==2.0rc1 1",
        "https://files.example.com/third-1.0.zip",
        "https://files.example.com/fourth-1.0.tar.gz",
    ];
    assert_eq!(named(&lock), expected);
    assert_eq!((lock.items[0].line, lock.items[1].line), (2, 8));
    let expected = [
        ("git+https://git.example.com/fifth", false),
        ("-e .", false),
        ("./here/sixth.whl", false),
        ("loose>=1.0", true),
        ("star==1.*", true),
        ("bare", true),
    ];
    assert_eq!(rest(&lock), expected);
    let included: Vec<String> = includes(text).into_iter().map(|found| found.1).collect();
    assert_eq!(included, ["more.txt", "other/x.txt", "short.txt"]);
}

#[test]
fn packages_that_are_not_of_a_registry_are_left_out() {
    let text = r#"{"lockfileVersion": 3, "packages": {"": {}, "part": {"version": "1.0.0"},
        "node_modules/part": {"resolved": "part", "link": true},
        "node_modules/alias": {"name": "real", "version": "1.0.0"},
        "node_modules/a/node_modules/b": {"version": "2.0.0", "inBundle": true},
        "node_modules/git": {"version": "1.0.0", "resolved": "git+ssh://git@git.example.com/x.git#0123"},
        "node_modules/dir": {"version": "file:dir"}}}"#;
    let lock = of(Format::Npm, text);
    assert_eq!(named(&lock), ["real@1.0.0"]);
    assert_eq!(rest(&lock), [("dir file:dir", false), ("git 1.0.0", false)]);
    let text = r#"{"lockfileVersion": 1, "dependencies": {"a": {"version": "npm:@s/real@1.0.0", "dependencies": {"b": {"version": "2.0.0"}}},
        "c": {"version": "1.0.0", "bundled": true}, "d": {"version": "github:x/y#0123"}}}"#;
    let lock = of(Format::Npm, text);
    assert_eq!(named(&lock), ["b@2.0.0", "@s/real@1.0.0"]);
    assert_eq!(rest(&lock), [("d github:x/y#0123", false)]);

    let text = "# yarn lockfile v1\n\n\"alias@npm:@s/real@^1\", \"alias@npm:@s/real@1\":\n  version \"1.0.0\"\n\
                \nlocal@file:./local:\n  version \"0.0.0\"\n\n\"git@https://git.example.com/x.git\":\n  version \"1.0.0\"\n  \
                resolved \"https://git.example.com/x.git#0123\"\n";
    let lock = of(Format::Yarn, text);
    assert_eq!(named(&lock), ["@s/real@1.0.0"]);
    assert_eq!(rest(&lock).len(), 2, "{:?}", lock.rest);
    let text = "# yarn lockfile v1\n\n\"a@>=1, <3\", a@^2:\n  version \"2.0.0\"\n";
    assert_eq!(named(&of(Format::Yarn, text)), ["a@2.0.0"]);
    assert!(
        of(Format::Yarn, "# yarn lockfile v1\n\n\n")
            .items
            .is_empty()
    );

    let text = "__metadata:\n  version: 8\n\n\"a@npm:^1\":\n  resolution: \"a@npm:1.0.0::__archiveUrl=https%3A%2F%2Fr.example.com%2Fa.tgz\"\n\
                \"a@patch:a@npm%3A1.0.0#x\":\n  resolution: \"a@patch:a@npm%3A1.0.0#x::version=1.0.0\"\n\
                \"g@https://git.example.com/g.git\":\n  resolution: \"g@https://git.example.com/g.git#commit=01\"\n";
    let lock = of(Format::Yarn, text);
    assert_eq!(named(&lock), ["a@1.0.0 https://r.example.com/a.tgz"]);
    assert_eq!(rest(&lock).len(), 1);
}

#[test]
fn an_index_says_where_a_version_of_a_chart_is() {
    let block = "apiVersion: v1\nentries:\n  odd:\n  - {name: odd, version: 1.0.0, urls: [dl/odd_v1.tgz, mirror/odd.tgz]}\n  \
                 - name: odd\n    dependencies: [{name: x, version: 1.0.0, urls: [wrong]}]\n    urls:\n    - dl/two.tgz\n    version: v2.0.0+b1\n  \
                 - {name: odd, version: '2.0', urls: [dl/too.tgz]}\n  - {name: odd, version: 3.0.0, urls: []}\n  \
                 other:\n  - {name: odd, version: 1.0.0, urls: [other.tgz]}\ngenerated: now\n";
    let json = r#"{"entries": {"odd": [{"urls": ["dl/odd_v1.tgz"], "version": "1.0.0"},
        {"version": "2.0.0", "urls": ["dl/two.tgz"]}, {"version": "v2", "urls": ["dl/too.tgz"]}]}}"#;
    for index in [block, json] {
        let of = |version| chart_addresses(index, "odd", version).unwrap();
        assert_eq!(of("1.0.0"), ["dl/odd_v1.tgz"]);
        assert_eq!(
            of("2.0.0"),
            ["dl/two.tgz", "dl/too.tgz"],
            "equal to clients"
        );
        assert!(of("3.0.0").is_empty() && of("2.0.0-1").is_empty());
    }
    assert!(chart_addresses("entries:\n  a: [\n", "a", "1").is_err());
}

#[test]
fn tarballs_by_url_in_the_first_form_of_package_lock_are_places() {
    let lock = r#"{"lockfileVersion": 1, "dependencies": {
        "a": {"version": "https://npm.example.com/a/-/a-1.0.0.tgz"}, "b": {"version": "github:u/b#0a"},
        "c": {"version": "https://npm.example.com/c/-/c-1.0.0.tgz", "bundled": true}}}"#;
    let lock = of(Format::Npm, lock);
    assert_eq!(named(&lock), ["https://npm.example.com/a/-/a-1.0.0.tgz"]);
    assert_eq!(lock.rest.len(), 1, "{lock:?}");
}

#[test]
fn lists_of_images_and_of_urls() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let text = format!(
        "# all\napp\n\nteam/app:1.0 # this one\nr.example.com:5000/team/app:1.0@{digest}\n"
    );
    let lock = of(Format::Images, &text);
    let lines: Vec<usize> = lock.items.iter().map(|item| item.line).collect();
    assert_eq!(lines, [2, 4, 5]);
    let last = format!("r.example.com:5000/team/app:1.0@{digest}");
    for (reference, expected) in [
        ("app", ("app", "latest")),
        ("team/app:1.0", ("team/app", "1.0")),
        (&*last, ("r.example.com:5000/team/app", &*digest)),
        ("localhost:5000/a", ("localhost:5000/a", "latest")),
    ] {
        assert_eq!(image_path(reference), Some(expected), "{reference}");
    }
    for wrong in [
        "App",
        "a//b",
        "a:",
        "a@sha256",
        "a@sha256:xyz",
        "a b",
        "../a",
        "/a",
        "a/",
        ":1",
        "",
    ] {
        assert_eq!(image_path(wrong), None, "{wrong:?}");
    }
    let text = "https://files.example.com/a#b\n\n/a b/c%20d\t# no\n#x\n";
    assert_eq!(
        named(&of(Format::Urls, text)),
        ["https://files.example.com/a#b", "/a b/c%20d"]
    );
}

#[test]
fn files_are_known_by_their_names() {
    for (name, format) in [
        ("requirements.txt", Some(Format::Requirements)),
        ("dev-requirements.txt", Some(Format::Requirements)),
        ("requirements.in", None),
        ("uv.lock", Some(Format::Uv)),
        ("pylock.toml", Some(Format::Pylock)),
        ("pylock.dev.toml", Some(Format::Pylock)),
        ("pyproject.toml", None),
        ("package-lock.json", Some(Format::Npm)),
        ("npm-shrinkwrap.json", Some(Format::Npm)),
        ("package.json", None),
        ("pnpm-lock.yaml", Some(Format::Pnpm)),
        ("yarn.lock", Some(Format::Yarn)),
        ("Chart.lock", Some(Format::Chart)),
        ("Chart.yaml", None),
        ("images.txt", Some(Format::Images)),
        ("urls.txt", Some(Format::Urls)),
        ("-", None),
    ] {
        assert_eq!(format_by_name(name), format, "{name}");
    }
}

#[test]
fn versions_and_names_of_python_s_files() {
    for (one, other, same) in [
        ("1.0", "1", true),
        ("1.0.0", "v1.0", true),
        ("1.0rc1", "1.0-RC.1", true),
        ("1.0c1", "1.0rc1", true),
        ("1.0.post1", "1.0-post1", true),
        ("1.0+cu.121", "1.0+cu_121", true),
        ("1.0+x", "1.0", true),
        ("1.0+x", "1.0+y", false),
        ("1.0rc1", "1.0pre1", true),
        ("1.0rc1", "1.0-preview_1", true),
        ("1.0a0", "1.0.alpha", true),
        ("1.0b2", "1.0-beta.02", true),
        ("1.0.post1", "1.0-1", true),
        ("1.0.post4", "1.0-r4", true),
        ("1.0rc1.post2.dev3", "1.0-c1-2_dev-3", true),
        ("1!1.0", "1!1", true),
        ("0!1.0", "1.0", true),
        ("1!1.0", "1.0", false),
        ("1.0.post1", "1.0.1", false),
        ("1.0.dev1", "1.0a1", false),
        ("1.0", "1.0.1", false),
        ("1.0", "1.0rc1", false),
        ("1.0", "1.0+x", false),
        ("10", "1", false),
        ("1.10", "1.1", false),
    ] {
        assert_eq!(is_version(one, other), same, "{one} {other}");
    }
    let of = |file, project| of_file(file, project).map(|found| found.version);
    assert_eq!(of("a_b-1.0-1-py3-none-any.whl", "a.b"), Some("1.0"));
    assert_eq!(of("a-b-1.0.tar.gz", "a_b"), Some("1.0"));
    assert_eq!(
        of("a-b-1.0-2.zip", "a"),
        Some("b-1.0-2"),
        "of another project's name nothing follows"
    );
    assert_eq!(of("a-1.0.tar.gz.asc", "a"), None);
    assert_eq!(of("b-1.0.tar.gz", "a"), None);
}

#[test]
fn what_is_no_lock_file_says_in_which_line() {
    use Format::{Chart, Images, Npm, Pnpm, Pylock, Requirements, Urls, Uv, Yarn};
    for (format, text, line) in [
        (Uv, "version = 1\n[[package]]\nname = \n", 3),
        (Uv, "version = 1\n[[package]]\nversion = '1'\n", 2),
        (Uv, "version = 1\npackage = 3\n", 2),
        (
            Uv,
            "version = 1\n[[package]]\nname = 'a'\nsource = { registry = 'x' }\nwheels = ['a']\n",
            5,
        ),
        (Uv, "", 1),
        (Pylock, "[[packages]]\nname = 'a'\n", 1),
        (Pylock, "lock-version = '2.0'\n", 1),
        (Pylock, "lock-version = '1.0'\npackages = [1]\n", 2),
        (Npm, "{\n\"packages\": {,}\n}", 2),
        (Npm, "[]", 1),
        (Npm, "{\"packages\": []}", 1),
        (Npm, "", 1),
        (Yarn, "# yarn lockfile v1\n\na@1:\n  resolved \"x\"\n", 3),
        (Yarn, "{\n}", 1),
        (Yarn, "  version \"1\"\n", 1),
        (Yarn, "", 1),
        (
            Yarn,
            "__metadata:\n  version: 8\n\"a@npm:1\":\n  version: 1\n",
            3,
        ),
        (Pnpm, "a: b\n", 1),
        (Chart, "a: b\n", 1),
        (Chart, "dependencies:\n- name: a\n", 2),
        (Requirements, "a==1\n\n!!!\n", 3),
        (Requirements, "a==1 \\\n  --hash=sha256:nothex\n", 1),
        (Requirements, "<html>\n", 1),
        (Images, "app\nNot An Image\n", 2),
        (Urls, "a\n../b\n", 2),
    ] {
        let unreadable = format.read("file", text).expect_err(text);
        assert_eq!(unreadable.line, line, "{format:?} {text:?}: {unreadable:?}");
        assert!(!unreadable.message.is_empty());
    }
    // YAML's own errors have their place in them.
    for (format, text) in [
        (Pnpm, "a: 1\nb: [\n"),
        (Chart, "a: b\na: c\n"),
        (Yarn, "__metadata:\n\tx\n"),
    ] {
        let unreadable = format.read("dir/file", text).expect_err(text);
        assert!(
            unreadable.message.starts_with("dir/file:"),
            "{unreadable:?}"
        );
    }
}

#[test]
fn hostile_texts_are_refused_or_read_and_never_panicked_over() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
    let mut texts = vec![
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("a = {}", deep("[", "]")),
        format!("lockfileVersion: {}", deep("[", "]")),
        "&a [*a, *a]".to_owned(),
        "\u{feff}\u{0}\u{1b}[31m".to_owned(),
        "@".to_owned(),
        "a@\n@@@:\n  version \"\n".to_owned(),
        "\\\n\\\n\\".to_owned(),
        "==1\n[==\n; ;\n".to_owned(),
        "lockfileVersion: 9\npackages:\n  '@': {}\n  '/': {}\n  '': {}\n  'ä@': {resolution: 3}\n"
            .to_owned(),
        "{\"lockfileVersion\": 1, \"dependencies\": {\"a\": 3, \"\": {\"version\": \"npm:\"}}}"
            .to_owned(),
        "{\"packages\": {\"node_modules/\": {\"version\": \"\"}, \"node_modules/é\": 7}}"
            .to_owned(),
    ];
    // Every beginning of a real file, cut at any character.
    for real in [
        include_str!("testdata/uv.lock"),
        include_str!("testdata/poetry.lock"),
        include_str!("testdata/Pipfile.lock"),
        include_str!("testdata/requirements.txt"),
        include_str!("testdata/package-lock-1.json"),
        include_str!("testdata/pnpm-lock.yaml"),
        include_str!("testdata/yarn-1.lock"),
        include_str!("testdata/yarn-4.lock"),
        include_str!("testdata/Chart.lock"),
    ] {
        texts.extend(
            (0..real.len())
                .step_by(37)
                .map(|end| real[..end].to_owned()),
        );
    }
    for text in &texts {
        for format in Format::value_variants() {
            let _ = format.read("file", text);
        }
        let _ = includes(text);
    }
}
