//! The document by which clients find a file: without one, a file that is held is of no use to them once the upstream is away.

use std::sync::Arc;

use larder_formats::Naming;

use super::Jobs;
use crate::origin::{Need, Origin as _};
use crate::policy::admission;
use crate::target::Target;

impl Jobs {
    /// The queries with which an index names a path that it does not name without one: lists show paths without queries, and those are
    /// what jobs are asked for.
    pub(super) async fn queries_of(&self, wanted: &Arc<Target>) -> Vec<String> {
        if !wanted.format.profile().forwards_queries || wanted.spec.is_document {
            return Vec::new();
        }
        let path = &wanted.spec.key_path;
        let naming = wanted.format.naming(&wanted.entry.repository, path);
        let document = naming
            .document
            .and_then(|spec| admission::document(wanted, spec));
        let Some(document) = document.map(Arc::new) else {
            return Vec::new();
        };
        let Ok(settled) = self.pipeline.remote.document(&document, Need::Usual).await else {
            return Vec::new();
        };
        let documents = &self.pipeline.documents;
        let Ok(table) = documents.arrived_claims(&document, &settled).await else {
            return Vec::new();
        };
        if table.find(path).is_some() {
            return Vec::new();
        }
        let before = format!("{path}?");
        table
            .iter_after(&before)
            .map_while(|(name, _)| name.strip_prefix(&before).map(str::to_owned))
            .collect()
    }

    /// Obtains the first of the documents that may name a file, unless one of them is held. Usually one is: whoever fetches a file asks
    /// for the document that states what it is. Where there is none, or the rules keep it out, the file is cached all the same.
    pub(super) async fn bring_index_of(&self, wanted: &Arc<Target>) {
        if wanted.spec.is_document || wanted.facts.naming == Naming::Nobody {
            return;
        }
        let repository = &wanted.entry.repository;
        let naming = wanted.format.naming(repository, &wanted.spec.key_path);
        let specs = naming.document.into_iter().chain(naming.otherwise);
        let documents: Vec<Arc<Target>> = specs
            .chain(naming.possible)
            .filter(|spec| spec.is_document)
            .map(|spec| wanted.with_client_encoding(spec))
            .filter_map(|spec| admission::document(wanted, spec).map(Arc::new))
            .collect();
        for document in &documents {
            let record = self.pipeline.catalog.record(&document.key).await;
            if record.is_ok_and(|record| record.is_some_and(|record| record.has_body())) {
                return;
            }
        }
        for document in &documents {
            match self.pipeline.remote.document(document, Need::Usual).await {
                Ok(_) => return,
                Err(fault) => {
                    tracing::debug!(key = %document.key, reason = fault.message, "no index was fetched beside a file of a job");
                }
            }
        }
    }
}
