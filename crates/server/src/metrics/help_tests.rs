use std::collections::BTreeSet;

use larder_engine::{Counters, MirrorCounters, RepositoryCounters};

use super::*;

/// Rows of the guide's tables: `| `name{labels}` | type | sentence |`.
fn documented() -> BTreeSet<(String, String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line
            .strip_prefix("| `")?
            .strip_suffix(" |")?
            .splitn(3, " | ")
            .collect();
        let [name, kind, sentence] = cells[..] else {
            return None;
        };
        let name = name.strip_suffix('`')?.split('{').next()?;
        let is_metric = name.starts_with("larder_") || name.starts_with("process_");
        is_metric.then(|| (name.to_owned(), kind.to_owned(), sentence.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_guide_has_a_row_for_each_metric_with_its_sentence_and_no_other_rows() {
    let told = HELP
        .iter()
        .map(|(name, kind, sentence)| (name.to_string(), kind.to_string(), sentence.to_string()))
        .collect();
    let documented = documented();
    assert_eq!(
        documented.difference(&told).collect::<Vec<_>>(),
        [] as [&(String, String, String); 0],
        "only in the guide"
    );
    assert_eq!(
        told.difference(&documented).collect::<Vec<_>>(),
        [] as [&(String, String, String); 0],
        "not in the guide"
    );
    assert_eq!(told.len(), HELP.len(), "twice");
}

#[test]
fn every_counter_of_the_engine_has_a_sentence() {
    let of = |prefix: &str, counters: Vec<(&'static str, u64)>| {
        counters
            .into_iter()
            .map(|(name, _)| format!("larder_{prefix}{name}_total"))
            .collect::<Vec<_>>()
    };
    let all = [
        of("", Counters::default().snapshot()),
        of("repository_", RepositoryCounters::default().snapshot()),
        of("mirror_", MirrorCounters::default().snapshot()),
    ];
    for name in all.concat() {
        assert_ne!(sentence(&name), "", "{name}");
    }
}
