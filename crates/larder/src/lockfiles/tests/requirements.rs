//! `requirements.txt` as pip takes it.

use super::*;

#[test]
fn options_are_behind_the_requirement_and_may_be_quoted() {
    let digest = "0a".repeat(32);
    let text = format!(
        "one==1.0\t# why\n\
         two==1.0 --config-settings \"--build-option=x y\" --global-option='a b' --hash=sha256:{digest}\n\
         three==1.0 \\\n\t--hash 'sha256:{digest}' --hash=\"sha512:00\" # why\n\
         four-five==1.0 ; sys_platform == 'linux' --hash=sha256:{digest}\n"
    );
    let lock = of(Format::Requirements, &text);
    let expected = [
        "one==1.0 0",
        "two==1.0 1",
        "three==1.0 1",
        "four-five==1.0 1",
    ];
    assert_eq!(named(&lock), expected);
    assert!(lock.rest.is_empty(), "{:?}", lock.rest);
}

#[test]
fn one_of_several_specifiers_may_pin_it() {
    let text = "a==1.0,>=0.5\nb >=0.5 , == 2.0\nc (>=1,===3.0)\nd>=1,<2\ne==1.*,>=1.2\n";
    let lock = of(Format::Requirements, text);
    assert_eq!(named(&lock), ["a==1.0 0", "b==2.0 0", "c==3.0 0"]);
    assert_eq!(rest(&lock), [("d>=1,<2", true), ("e==1.*,>=1.2", true)]);
}

/// PEP 508 has no blanks around the `@`, and one before the marker.
#[test]
fn a_url_is_behind_an_at_sign() {
    let text = "a@https://files.example.com/a-1.0.zip ; python_version < '4'\n\
                b[x]@ https://files.example.com/b-1.0.zip#sha256=00; python_version < '4'\n\
                c @https://files.example.com/c-1.0.zip\t--hash=sha256:00\n\
                d@git+https://git@git.example.com/d\n./e@1.zip\nf-1.0.tar.gz\n";
    let lock = of(Format::Requirements, text);
    let expected = ["a", "b", "c"].map(|name| format!("https://files.example.com/{name}-1.0.zip"));
    assert_eq!(named(&lock), expected);
    let expected = [
        ("git+https://git@git.example.com/d", false),
        ("./e@1.zip", false),
        ("f-1.0.tar.gz", false),
    ];
    assert_eq!(rest(&lock), expected);
}

#[test]
fn what_is_included_is_a_file_or_a_url_or_missing() {
    let text = "\u{feff}-r base.txt\n-r \"ot her.txt\"\n--requirement='more.txt' # why\n--no-index -rlast.txt\n\
                -r ftp://files.example.com/web.txt\n-r https://\n-r https://files.example.com/web.txt\n-c limits.txt\nfile-r==1.0\n";
    let included: Vec<String> = includes(text).into_iter().map(|found| found.1).collect();
    let web = "https://files.example.com/web.txt";
    let files = ["base.txt", "ot her.txt", "more.txt", "last.txt", web];
    assert_eq!(included, files);
    let lock = of(Format::Requirements, text);
    assert_eq!(named(&lock), ["file-r==1.0 0"]);
    let missing = ["ftp://files.example.com/web.txt", "https://"];
    assert_eq!(rest(&lock), missing.map(|place| (place, true)));
    assert_eq!(lock.rest[0].line, 5);
}
