//! Configurations in temporary directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder::config::{Diagnostic, Environment, Settings, Sources, load};
use larder_core::Repository;

/// A directory with these files.
pub(crate) fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("within the directory")).expect("directories");
        std::fs::write(path, text).expect("a file");
    }
    directory
}

/// The sources that read `config`, with a home and nothing else in the environment.
pub(crate) fn sources(config: &Path) -> Sources {
    Sources {
        config: Some(config.to_owned()),
        environment: Environment::of([("HOME", "/home/user")]),
        ..Sources::default()
    }
}

/// Loads one file with this text.
pub(crate) fn load_text(text: &str) -> Result<Settings, Vec<Diagnostic>> {
    let directory = directory(&[("f.yaml", text)]);
    load(&sources(&directory.path().join("f.yaml")))
}

/// The settings of a text that must load.
pub(crate) fn loaded(text: &str) -> Settings {
    load_text(text).unwrap_or_else(|found| panic!("must load:\n{}", lines(&found)))
}

/// The findings of a text that must not load, one a line, without the directory.
pub(crate) fn refused(text: &str) -> String {
    match load_text(text) {
        Ok(_) => panic!("must not load: {text}"),
        Err(found) => lines(&found),
    }
}

/// Findings, one a line, files by their names only.
pub(crate) fn lines(found: &[Diagnostic]) -> String {
    let line = |found: &Diagnostic| {
        let text = found.to_string();
        match &found.place {
            Some(place) => {
                let name = Path::new(&*place.file)
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                text.replacen(&*place.file, &name, 1)
            }
            None => text,
        }
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A repository by name.
pub(crate) fn repository(settings: &Settings, name: &str) -> Arc<Repository> {
    let found = settings
        .repositories
        .iter()
        .find(|r| r.name.as_str() == name);
    Arc::clone(found.unwrap_or_else(|| panic!("repository {name}")))
}

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}
