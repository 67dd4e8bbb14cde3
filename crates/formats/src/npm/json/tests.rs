use super::*;

fn scan(body: &[u8]) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(body)?;
    scanner.skip()?;
    scanner.finish()
}

#[test]
fn accepts_what_rfc_8259_accepts() {
    for text in [
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "10",
        "-1.5e+10",
        "1E5",
        "1e-0",
        "\"\"",
        r#""\"\\\/\b\f\n\r\t\u0041\ud800""#,
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1,2]",
        "[[],{}]",
        "{\"a\":1,\"a\":[{}]}",
        "\t\r\n{\"\u{e4}\":\"\u{1f600}\"}\n",
        "\"\u{7f}\"",
        "{\"12345678\":\"1234567\",\"123456789\":\"\"}",
    ] {
        assert_eq!(scan(text.as_bytes()), Ok(()), "{text}");
    }
}

#[test]
fn refuses_what_rfc_8259_refuses() {
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "-",
        "--1",
        "0x1",
        "NaN",
        "Infinity",
        "'a'",
        "\"a",
        "\"a\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"12345678\u{1}\"",
        "\"\u{0}\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "{\"a\":1 \"b\":2}",
        "{} {}",
        "{}x",
        "[]]",
        "// c\n1",
        "1 /* c */",
        "\u{a0}1",
        "\u{c}1",
    ] {
        assert!(scan(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn refuses_invalid_utf8_and_byte_order_marks() {
    assert_eq!(
        scan(b"\"a\xff\""),
        Err(Malformed("it is not UTF-8 at byte 2".to_owned()))
    );
    assert!(scan(b"\"\xed\xa0\x80\"").is_err());
    assert!(
        scan(b"\xef\xbb\xbf{}")
            .unwrap_err()
            .0
            .contains("byte order mark")
    );
    assert!(scan(b"\xff\xfe{\0}\0").is_err());
}

#[test]
fn hazard_r3_depth_is_bounded_without_recursion() {
    let nested =
        |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    assert_eq!(scan(nested("[", "]", 128).as_bytes()), Ok(()));
    assert_eq!(scan(nested("{\"a\":", "}", 128).as_bytes()), Ok(()));
    for levels in [129, 1_000_000] {
        assert!(
            scan(nested("[", "]", levels).as_bytes())
                .unwrap_err()
                .0
                .contains("128 levels")
        );
        assert!(
            scan(nested("{\"a\":", "}", levels).as_bytes())
                .unwrap_err()
                .0
                .contains("128 levels")
        );
        assert!(scan("[".repeat(levels).as_bytes()).is_err());
    }
}

#[test]
fn depth_counts_the_objects_that_are_being_walked() {
    let inner = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    let walk = |text: &str| Scanner::new(text.as_bytes())?.object(|scanner, _| scanner.skip());
    assert_eq!(walk(&inner(127)), Ok(()));
    assert!(walk(&inner(128)).is_err());
}

#[test]
fn special_bytes_are_found_at_every_offset() {
    for special in [b'"', b'\\', 0, 0x1f] {
        for length in 1..40 {
            for at in 0..length {
                let mut bytes = vec![0xc3; length];
                bytes[at] = special;
                assert_eq!(plain_until(&bytes, 0), at);
            }
        }
    }
    let plain: Vec<u8> = (0..=255)
        .filter(|b| *b >= b' ' && *b != b'"' && *b != b'\\')
        .collect();
    assert_eq!(plain_until(&plain, 0), plain.len());
}

#[test]
fn spans_are_those_of_the_document() {
    let body = br#" { "ke\u0079" : "v\/w", "n": 1.50 } "#;
    let mut seen = Vec::new();
    let mut scanner = Scanner::new(body).unwrap();
    scanner
        .object(|scanner, key| {
            let value = scanner.string_or_skip()?;
            seen.push((
                key.value().unwrap().into_owned(),
                key.is("key"),
                value.map(|v| (v.range(), v.value().unwrap().into_owned())),
            ));
            Ok(())
        })
        .unwrap();
    scanner.finish().unwrap();
    assert_eq!(
        seen,
        [
            ("key".to_owned(), true, Some((17..21, "v/w".to_owned()))),
            ("n".to_owned(), false, None)
        ]
    );
    assert_eq!(&body[17..21], br"v\/w");
}

#[test]
fn half_surrogates_are_legal_but_have_no_value() {
    let mut scanner = Scanner::new(br#""\ud800""#).unwrap();
    let text = scanner.string_or_skip().unwrap().unwrap();
    assert_eq!(text.value(), None);
    assert!(!text.is("\u{fffd}"));
}

proptest::proptest! {
    #[test]
    fn agrees_with_serde_json(text in "[\\[\\]{}:,\"\\\\a0-9.eE+ tfnrulsu-]{0,24}") {
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        proptest::prop_assert_eq!(scan(text.as_bytes()).is_ok(), theirs, "{}", text);
    }
}
