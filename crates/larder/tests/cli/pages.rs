//! Completions and the manual page: real shells and a real roff take them, where they are installed.

use std::process::{Command, Stdio};

use crate::run;

/// The output of a program that reads this; `None` if it is not installed.
fn fed(program: &str, arguments: &[&str], text: &str) -> Option<(bool, String)> {
    use std::io::Write as _;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("its end");
    // It may have read enough before all was written.
    let _ = writer.join().expect("a thread");
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_commands_and_flags() {
    let home = tempfile::tempdir().expect("a directory");
    let script = |shell: &'static str| {
        let home = home.path().to_owned();
        async move { run(&home, &["completions", shell], &[]).await.ok() }
    };
    let bash = script("bash").await;
    let ask = |line: &str, word: usize| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        format!(
            "{bash}\nCOMP_WORDS=({}); COMP_CWORD={word}; _larder larder '{}' '{}'; echo \"${{COMPREPLY[@]}}\"\n",
            words.join(" "),
            line.split(' ').nth(word).unwrap_or_default(),
            line.split(' ').nth(word - 1).unwrap_or_default(),
        )
    };
    for (line, word, wanted) in [
        ("larder expl", 1, "explain"),
        ("larder get --tok", 2, "--token-file"),
    ] {
        if let Some((ok, said)) = fed("bash", &["--norc"], &ask(line, word)) {
            assert!(ok && said.trim() == wanted, "{line}: {said}");
        }
    }
    for (shell, arguments) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["-n"])] {
        let script = script(shell).await;
        if let Some((ok, said)) = fed(shell, arguments, &script) {
            assert!(ok && said.trim().is_empty(), "{shell}: {said}");
        }
    }
    run(home.path(), &["completions", "tcsh"], &[])
        .await
        .refused(2, &["tcsh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_page_is_roff() {
    let home = tempfile::tempdir().expect("a directory");
    let page = run(home.path(), &["man"], &[]).await.ok();
    assert!(page.starts_with(".TH LARDER 1 "), "{page}");
    let arguments = ["-man", "-Tascii", "-ww", "-P-cbou"];
    if let Some((ok, said)) = fed("groff", &arguments, &page) {
        assert!(ok && said.contains("EXIT STATUS"), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_escapes_where_nobody_wants_them() {
    let home = tempfile::tempdir().expect("a directory");
    for arguments in [
        &["--help"][..],
        &["ls", "--help"],
        &["lss"],
        &["doctor", "--help"],
    ] {
        let done = run(home.path(), arguments, &[]).await;
        let said = format!("{}{}", done.out, done.err);
        assert!(!said.is_empty() && !said.contains('\u{1b}'), "{said:?}");
    }
    // At a terminal (script makes one), it is as the environment says.
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let program = env!("CARGO_BIN_EXE_larder");
        let line = format!("{program} ls --help; {program} lss");
        let output = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("TERM", "xterm"),
                (variable, value),
            ])
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else {
            return eprintln!("SKIPPED: script is not installed");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("larder ls") && !said.contains('\u{1b}'),
            "{said:?}"
        );
    }
}
