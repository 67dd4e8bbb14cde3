//! `/ui/repositories/{repo}`: one repository, and which page is below it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::body::Incoming;
use larder_core::{Pattern, Repository, RepositoryKind};
use larder_engine::Room;
use larder_formats::{client_lines, repository_url};
use larder_ui::pages::{self, Counter, Facts, Mirror, RefusedGroup, Rule, SetUp};
use larder_ui::{Bytes, Count, Moment, Share, Span};

use super::numbers::{Numbers, mirror, mirrors};
use super::trends::Spans;
use super::visit::{Outcome, Visit};
use super::{flush, guard, nothing, outage, views};
use crate::backend::Backend;

/// Groups of refused paths that are shown.
const MOST_REFUSED: usize = 100;

/// `below`: the raw path behind `/ui/repositories/`.
pub(crate) async fn route<B: Backend>(
    visit: &Visit<'_, B>,
    below: &str,
    body: &mut Incoming,
) -> Outcome {
    let (name, page) = below
        .split_once('/')
        .map_or((below, None), |(name, page)| (name, Some(page)));
    let repository = visit.repository(name)?;
    let is_post = visit.method() == Method::POST;
    match page {
        None | Some("") if !is_post => show(visit, &repository).await,
        Some("flush") if is_post => flush::flush(visit, &repository, body).await,
        Some("flush") => flush::show(visit, &repository),
        Some("outage") if !is_post => outage::show(visit, &repository).await,
        Some("mirrors") if is_post => compare(visit, &repository, body).await,
        Some("warm") if is_post => outage::warm(visit, &repository, body).await,
        // Whoever has been refused there, and reads the address again.
        Some("mirrors") => Ok(visit.redirect(&format!("/ui/repositories/{name}"))),
        Some("warm") => Ok(visit.redirect(&format!("/ui/repositories/{name}/outage"))),
        Some(page) => views::route(visit, &repository, page, body).await,
        None => Err(nothing(visit)),
    }
}

/// Asks the mirrors how old their indexes are.
async fn compare<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    body: &mut Incoming,
) -> Outcome {
    guard::change(visit, body).await?;
    let name = repository.name.as_str();
    visit.backend().compare_mirrors(name).await?;
    Ok(visit.redirect(&format!("/ui/repositories/{name}#upstream")))
}

async fn show<B: Backend>(visit: &Visit<'_, B>, repository: &Arc<Repository>) -> Outcome {
    let numbers = Numbers::read(visit);
    let name = repository.name.as_str();
    let base = visit.base();
    let lines = client_lines(&base, repository).into_iter();
    let own = numbers.upstreams.iter().filter(|r| r.repository == name);
    let counted = mirrors(&numbers.engine);
    let mirrors: Vec<Mirror> = own.map(|report| mirror(report, &counted)).collect();
    let parents = visit.backend().repositories();
    let parents = parents
        .iter()
        .filter(|parent| parent.members().contains(&repository.name));
    visit.page(&pages::Repository {
        repository: numbers.head(visit, repository),
        address: repository_url(&base, repository),
        is_public: !visit.live.public_urls.is_empty(),
        remark: remark(visit, repository),
        set_up: lines
            .map(|lines| SetUp {
                client: lines.client,
                place: lines.place,
                text: lines.text,
            })
            .collect(),
        facts: facts(visit, repository, &numbers).await?,
        mirrors,
        rules: rules(visit, repository),
        members: repository
            .members()
            .iter()
            .map(ToString::to_string)
            .collect(),
        member_of: parents.map(|parent| parent.name.to_string()).collect(),
        counters: counters(&numbers, name),
        refused: refused(visit, name),
        trends: Spans::read(visit, Some(name))
            .await
            .ok()
            .map(|spans| spans.shown()),
    })
}

/// What the state means, where that is not seen at once.
fn remark<B: Backend>(visit: &Visit<'_, B>, repository: &Repository) -> Option<String> {
    if let Some(reason) = visit.backend().not_built(repository.name.as_str()) {
        return Some(format!("Not served: {reason}. Requests are answered 501."));
    }
    let offline = repository.upstream()?.offline;
    let said = "Offline: what is held is served, and the upstream is not asked (offline: true).";
    offline.then(|| said.to_owned())
}

async fn facts<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Repository,
    numbers: &Numbers,
) -> Result<Facts, larder_core::Fault> {
    let name = repository.name.as_str();
    let requests = numbers.of(name);
    let is_served = visit.backend().not_built(name).is_none();
    let has_files = repository.kind() != RepositoryKind::Virtual && is_served;
    let size = if has_files {
        let held = visit.backend().held_summary(Some(name)).await?;
        let own = held.repositories.into_iter();
        own.into_iter().find(|size| size.repository == name)
    } else {
        None
    };
    let most = match repository.local() {
        Some(local) => local.quota,
        None => repository.upstream().and_then(|upstream| upstream.max_disk),
    };
    let quota = numbers
        .engine
        .quotas
        .iter()
        .find(|(known, _)| known == name);
    let said = |what: &str| {
        let mut all = quota?.1.iter();
        let (_, value) = all.find(|(known, _)| *known == what)?;
        Some(Count(*value))
    };
    Ok(Facts {
        files: has_files.then(|| Count(size.as_ref().map_or(0, |size| size.files))),
        bytes: has_files.then(|| Bytes(size.as_ref().map_or(0, |size| size.bytes))),
        most: most.map(Bytes),
        requests: Count(requests.requests),
        hit_ratio: requests.hit_ratio().map(Share),
        sent: Bytes(requests.served_bytes),
        fetched: Bytes(numbers.counter(name, "upstream_bytes")),
        quota_limit: said("upstream_quota_limit"),
        quota_left: said("upstream_quota_remaining"),
    })
}

fn counters(numbers: &Numbers, name: &str) -> Vec<Counter> {
    let mut all = numbers.engine.repositories.iter();
    let own = all.find(|(known, _)| known == name);
    let counters = own.map(|(_, counters)| counters.as_slice());
    let shown = |(name, value): &(&'static str, u64)| Counter {
        name,
        value: Count(*value),
    };
    counters.unwrap_or_default().iter().map(shown).collect()
}

/// What the rules kept out: of a virtual repository its own and those of its members.
fn refused<B: Backend>(visit: &Visit<'_, B>, name: &str) -> Option<Vec<RefusedGroup>> {
    let holders = visit.backend().holders(name).unwrap_or_default();
    let others = holders
        .iter()
        .map(String::as_str)
        .filter(|other| *other != name);
    let mut all = Vec::new();
    for repository in [name].into_iter().chain(others) {
        let groups = visit.backend().refused(repository).ok()?.into_iter();
        all.extend(groups.map(|group| RefusedGroup {
            repository: repository.to_owned(),
            count: Count(group.count),
            last: Moment(group.last),
            rule: group.rule,
            examples: group.examples,
            refused_by: group.refused_by,
            pattern: group.pattern,
            add_to: group.add_to,
        }));
    }
    all.sort_by_key(|group| Reverse(group.count));
    let mut room = Room::new(MOST_REFUSED, 0);
    let fits = all.iter().take_while(|group| {
        let is_full = room.is_full();
        let examples: Vec<&str> = group.examples.iter().map(String::as_str).collect();
        room.take(1, &examples);
        !is_full
    });
    let fits = fits.count();
    all.truncate(fits);
    Some(all)
}

/// What may be asked for, and how copies are kept, each with the line of the configuration that says so.
fn rules<B: Backend>(visit: &Visit<'_, B>, repository: &Repository) -> Vec<Rule> {
    let lines = &visit.live.config_lines;
    // The rules are no secret; where the file is, is the operator's business.
    let may_see = visit.may_see_configuration().is_ok();
    let rule = |key: &'static str, meaning: &'static str, values: Vec<String>| {
        let line = lines.get(&format!("remotes.{}.{key}", repository.name));
        Rule {
            key,
            meaning,
            values,
            is_default: line.is_none(),
            line: line.filter(|_| may_see).cloned(),
        }
    };
    let access = &repository.access;
    let mut rules = vec![
        rule("deny_patterns", "Denied paths", listed(&access.deny)),
        rule("allow_patterns", "Allowed paths", listed(&access.allow)),
        rule(
            "immutable_patterns",
            "Files that never change",
            access.immutable.as_deref().map(listed).unwrap_or_default(),
        ),
        rule(
            "mutable_patterns",
            "Files that change",
            access.mutable.as_deref().map(listed).unwrap_or_default(),
        ),
    ];
    rules.retain(|rule| !rule.values.is_empty());
    if rules.is_empty() {
        let all = vec!["all".to_owned()];
        rules.push(rule("allow_patterns", "Allowed paths", all));
    }
    if repository.upstream().is_some() {
        rules.extend(times(repository, &rule));
    }
    if let Some(local) = repository.local() {
        let word = if local.allow_overwrite { "yes" } else { "no" };
        rules.push(rule(
            "allow_overwrite",
            "Files may be overwritten",
            vec![word.to_owned()],
        ));
    }
    rules
}

/// How long copies are good, and what is held back.
fn times(
    repository: &Repository,
    rule: &dyn Fn(&'static str, &'static str, Vec<String>) -> Rule,
) -> Vec<Rule> {
    let cache = &repository.cache;
    let time = |time: Duration| Span(time.as_secs()).to_string();
    let mut rules = vec![
        rule(
            "cache.immutable_ttl",
            "Files are fresh for",
            vec![cache.immutable_ttl.map_or("ever".to_owned(), time)],
        ),
        rule(
            "cache.mutable_ttl",
            "Documents are fresh for",
            vec![time(cache.mutable_ttl)],
        ),
        rule(
            "stale.max_age",
            "Served while the upstream fails for",
            vec![cache.stale_max_age.map_or("any time".to_owned(), time)],
        ),
    ];
    if let Some(hold) = repository.quarantine.hold {
        rules.push(rule(
            "quarantine_days",
            "New files are held back for",
            vec![time(hold)],
        ));
    }
    rules
}

fn listed(patterns: &[Pattern]) -> Vec<String> {
    let texts = patterns.iter().map(Pattern::as_str);
    texts.map(str::to_owned).collect()
}
