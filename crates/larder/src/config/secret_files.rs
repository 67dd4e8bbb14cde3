//! Secrets out of the environment: in a variable, or in a file that a variable with `_FILE` behind its name names.

use super::diagnostic::Report;
use super::env::Environment;

/// The longest file that is read as a secret, in bytes.
const LONGEST: u64 = 64 << 10;

/// The value of `name`, or of the file that `name_FILE` names, without a final newline. Both are an error, and so is a file that cannot be
/// read or is empty.
pub(super) fn secret(environment: &Environment, name: &str, report: &mut Report) -> Option<String> {
    let by_file = format!("{name}_FILE");
    let value = environment.get(name);
    let Some(path) = environment.get(&by_file) else {
        return value.map(str::to_owned);
    };
    if value.is_some() {
        report.error(
            None,
            format!("{name} and {by_file} are both set: which of them counts? Unset one"),
        );
        return None;
    }
    match read(path) {
        Ok(text) => Some(text),
        Err(why) => {
            report.error(None, format!("{by_file}: {path} {why}"));
            None
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    let told = |error: std::io::Error| format!("cannot be read: {error}");
    let length = std::fs::metadata(path).map_err(told)?.len();
    if length > LONGEST {
        return Err(format!("is no secret: it has {length} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(told)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (Option<String>, String) {
        let mut report = Report::default();
        let environment = Environment::of(variables.iter().copied());
        let secret = secret(&environment, "S", &mut report);
        let said: Vec<String> = report
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect();
        (secret, said.join("\n"))
    }

    #[test]
    fn a_secret_stands_in_a_variable_or_in_a_file_and_loses_one_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        assert_eq!(of(&[]), (None, String::new()));
        assert_eq!(of(&[("S", "a")]).0.as_deref(), Some("a"));
        for (text, want) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a \n\n", "a \n")] {
            let file = path("s", text);
            assert_eq!(
                of(&[("S_FILE", &file)]),
                (Some(want.to_owned()), String::new())
            );
        }
        let file = path("s", "canary");
        let (secret, said) = of(&[("S", "canary"), ("S_FILE", &file)]);
        assert!(
            secret.is_none() && said.contains("S and S_FILE are both set"),
            "{said}"
        );
        assert!(!said.contains("canary"));
        for bad in [
            path("empty", "\n"),
            path("long", &"x".repeat(70_000)),
            "/none".to_owned(),
        ] {
            let (secret, said) = of(&[("S_FILE", &bad)]);
            assert!(secret.is_none() && said.contains("S_FILE: "), "{said}");
        }
    }
}
