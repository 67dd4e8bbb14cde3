//! Properties of derivations, over pages made at random.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::negotiate::{HTML, JSON};
use super::super::test_support::Page;

/// A file as an upstream might list it.
fn file() -> impl Strategy<Value = Value> {
    let hash = "[0-9a-f]{64}";
    let yanked = prop_oneof![
        Just(json!(false)),
        Just(json!(true)),
        "[^\0]{1,20}".prop_map(Value::from)
    ];
    let metadata = prop_oneof![
        Just(json!(false)),
        Just(json!(true)),
        hash.prop_map(|hex| json!({"sha256": hex}))
    ];
    (
        "[0-9]{1,3}(\\.[0-9]{1,2}){0,2}(\\+[a-z0-9]{1,4})?",
        "[a-z0-9/]{0,12}",
        hash,
        option::of("[^\0]{1,20}"),
        yanked,
        metadata,
        option::of(any::<bool>()),
        option::of(any::<u64>()),
    )
        .prop_map(
            |(version, directory, hash, python, yanked, metadata, signed, size)| {
                let directory = directory
                    .split('/')
                    .filter(|part| !part.is_empty())
                    .fold(String::new(), |path, part| path + part + "/");
                let name = format!("foo-{version}.tar.gz");
                let mut file = Map::new();
                file.insert(
                    "url".into(),
                    json!(format!(
                        "https://files.example.com/{directory}{}",
                        name.replace('+', "%2B")
                    )),
                );
                file.insert("filename".into(), json!(name));
                file.insert("hashes".into(), json!({"sha256": hash}));
                file.insert("yanked".into(), yanked);
                file.insert("core-metadata".into(), metadata);
                python.map(|text| file.insert("requires-python".into(), json!(text)));
                signed.map(|signed| file.insert("gpg-sig".into(), json!(signed)));
                size.map(|size| file.insert("size".into(), json!(size)));
                Value::Object(file)
            },
        )
}

/// What HTML can say of a file, links leading to larder.
fn told_by_html(file: &Value) -> Value {
    let mut file = file.as_object().unwrap().clone();
    file.remove("size");
    for flag in ["yanked", "core-metadata"] {
        if file[flag] == json!(false) {
            file.remove(flag);
        }
    }
    Value::Object(file)
}

fn page(files: &[Value]) -> Page {
    Page::json(
        "foo",
        json!({"meta": {"api-version": "1.1"}, "name": "foo", "files": files, "versions": []})
            .to_string(),
    )
}

proptest! {
    #[test]
    fn json_of_json_changes_links_only(files in vec(file(), 0..6)) {
        let page = page(&files);
        let back = page.text(JSON).replace("/api/v1/remote/py/", "https://files.example.com/");
        prop_assert_eq!(back.as_bytes(), &page.body[..]);
    }

    #[test]
    fn what_html_tells_is_what_json_told(files in vec(file(), 0..6)) {
        // Our HTML, read again as an upstream's, and made JSON.
        let html = page(&files).text(HTML).replace("/api/v1/remote/py/", "https://files.example.com/");
        let again = Page::html("foo", html);
        let expected: Vec<_> = files.iter().map(told_by_html).collect();
        let told = again.text(JSON).replace("/api/v1/remote/py/", "https://files.example.com/");
        let told: Value = serde_json::from_str(&told).unwrap();
        prop_assert_eq!(&told["files"], &json!(expected));
    }

    #[test]
    fn rendering_html_again_changes_nothing(files in vec(file(), 0..6)) {
        let html = page(&files).text(HTML);
        let again = Page::html("foo", html.replace("/api/v1/remote/py/", "https://files.example.com/")).text(HTML);
        prop_assert_eq!(again, html);
    }

    #[test]
    fn claims_are_the_same_for_both_syntaxes_but_for_size_and_time(files in vec(file(), 0..6)) {
        let page = page(&files);
        let html = Page::html("foo", page.text(HTML).replace("/api/v1/remote/py/", "https://files.example.com/"));
        let mut of_json = page.claims();
        for claim in &mut of_json {
            claim.size = None;
        }
        prop_assert_eq!(of_json, html.claims());
    }

    #[test]
    fn whatever_passes_the_check_can_be_derived(body in ".{0,200}", html in any::<bool>()) {
        let page = if html { Page::html("foo", body) } else { Page::json("foo", body) };
        let passes = page.check().is_ok();
        for form in [JSON, HTML] {
            let derived = page.try_derive(form);
            prop_assert!(!passes || derived.is_ok());
        }
    }

    #[test]
    fn broken_pages_never_panic(cut in 0_usize..3000, garbage in vec(any::<u8>(), 0..8)) {
        for (text, is_json) in [(include_str!("../testdata/warehouse.json"), true), (include_str!("../testdata/warehouse.html"), false)] {
            let at = cut.min(text.len());
            let mut body = text.as_bytes()[..at].to_vec();
            body.extend_from_slice(&garbage);
            body.extend_from_slice(&text.as_bytes()[(at + garbage.len()).min(text.len())..]);
            let page = if is_json { Page::json("sample-project", body) } else { Page::html("sample-project", body) };
            let passes = page.check().is_ok();
            for form in [JSON, HTML] {
                prop_assert!(page.try_derive(form).is_ok() || !passes);
            }
        }
    }
}
