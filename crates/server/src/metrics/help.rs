//! What each metric means: the sentences of docs/operate/metrics.md, which a test compares with these.

/// Each metric by the name of its samples, with its type and its meaning.
pub(super) const HELP: &[(&str, &str, &str)] = &[
    // Of the server.
    (
        "larder_requests_total",
        "counter",
        "requests answered; `repository` is empty for what addresses none, `status` is `2xx` and so on",
    ),
    (
        "larder_request_duration_seconds",
        "histogram",
        "seconds from a request's head to the head of its answer, the hot set's answers left out",
    ),
    (
        "larder_sent_bytes_total",
        "counter",
        "body bytes of artifacts handed to connections; `source` is `remote` where any byte of the answer came from upstream for it, else `cache` (the hot set included)",
    ),
    ("larder_connections", "gauge", "open connections"),
    (
        "larder_connections_limit",
        "gauge",
        "connections that may be open at once, beside a few kept for probes; further clients wait",
    ),
    (
        "larder_connections_failed_total",
        "counter",
        "connections that failed in their TLS handshake",
    ),
    (
        "larder_connections_stalled_total",
        "counter",
        "connections, and streams of HTTP/2, that were cut because the client took next to nothing of its answer for five minutes",
    ),
    (
        "larder_requests_in_flight",
        "gauge",
        "requests that wait for an answer or its body",
    ),
    (
        "larder_downloads_in_flight",
        "gauge",
        "downloads and revalidations that are running",
    ),
    (
        "larder_downloads_limit",
        "gauge",
        "downloads of files that may run at once; further ones wait",
    ),
    (
        "larder_budget_limit",
        "gauge",
        "places, or bytes, that all repositories share",
    ),
    (
        "larder_budget_held",
        "gauge",
        "places, or bytes, that are in use",
    ),
    (
        "larder_budget_waiting",
        "gauge",
        "how many wait for a place, or for room",
    ),
    (
        "larder_budget_refused_total",
        "counter",
        "how many were refused with `busy`, or got an older copy, because too many of their repository waited or they had waited too long",
    ),
    (
        "larder_budget_yielded_total",
        "counter",
        "how many were given up, slow, because others needed their place",
    ),
    (
        "larder_cluster_shared_up",
        "gauge",
        "1 if what replicas share (Redis) answers and takes what larder keeps there, or none is configured, else 0; the metrics of the cluster are there where `REDIS_URL` or `DBHOST` is set",
    ),
    (
        "larder_cluster_replicas",
        "gauge",
        "replicas that have been heard in the last ten seconds, this one included",
    ),
    (
        "larder_cluster_configurations",
        "gauge",
        "different configurations that replicas have: more than 1 is drift",
    ),
    (
        "larder_cluster_configuration",
        "gauge",
        "1 for each replica (`this`, or its address) with the digest of the configuration that it has",
    ),
    (
        "larder_cluster_clock_skew_seconds",
        "gauge",
        "how far the clock of any other replica is from this one's",
    ),
    (
        "larder_cluster_downloads_total",
        "counter",
        "downloads that replicas share",
    ),
    (
        "larder_hot_set_entries",
        "gauge",
        "request targets in the hot set",
    ),
    (
        "larder_hot_set_bytes",
        "gauge",
        "bytes that the hot set takes",
    ),
    (
        "larder_hot_set_limit_bytes",
        "gauge",
        "bytes that the hot set may take; 0: it is off",
    ),
    (
        "larder_refusals_total",
        "counter",
        "requests refused or failed, by the `code` of the error body, and answers that broke off; `/health` has the same with the time of the last",
    ),
    (
        "larder_loops_refused_total",
        "counter",
        "requests of larder's own that came back to it and were refused with 508: correct that repository's `base_url`, or that of the one which leads to it",
    ),
    // Of each repository.
    (
        "larder_repository_hits_total",
        "counter",
        "answers from a held copy, the hot set's left out",
    ),
    (
        "larder_repository_misses_total",
        "counter",
        "requests that started a download or a revalidation",
    ),
    (
        "larder_repository_collapsed_total",
        "counter",
        "requests that joined one that was running",
    ),
    (
        "larder_repository_revalidated_total",
        "counter",
        "copies renewed without a download",
    ),
    (
        "larder_repository_stale_served_total",
        "counter",
        "expired copies served because the upstream failed or took longer than stale.wait",
    ),
    (
        "larder_repository_told_to_wait_total",
        "counter",
        "requests answered 429 or 503 without asking, because the upstream has said when to come back",
    ),
    (
        "larder_repository_upstream_requests_total",
        "counter",
        "requests sent to upstreams",
    ),
    (
        "larder_repository_upstream_errors_total",
        "counter",
        "requests to upstreams that brought no answer of any status",
    ),
    (
        "larder_repository_upstream_bytes_total",
        "counter",
        "body bytes received from upstreams",
    ),
    (
        "larder_repository_fills_committed_total",
        "counter",
        "downloads kept",
    ),
    (
        "larder_repository_fills_failed_total",
        "counter",
        "downloads that failed",
    ),
    (
        "larder_repository_fills_not_kept_total",
        "counter",
        "downloads served and not kept (disk nearly full, `max_size`, a flush meanwhile)",
    ),
    (
        "larder_repository_fills_resumed_total",
        "counter",
        "downloads taken up again after a cut",
    ),
    (
        "larder_repository_evicted_files_total",
        "counter",
        "held documents and files that went to keep to `limits.disk` or `max_disk`",
    ),
    (
        "larder_repository_evicted_bytes_total",
        "counter",
        "their bytes",
    ),
    (
        "larder_repository_digest_mismatches_total",
        "counter",
        "bodies that were not what the index states",
    ),
    (
        "larder_repository_mismatches_kept_total",
        "counter",
        "files kept although the index states another digest (`verify: warn`)",
    ),
    (
        "larder_repository_links_not_carried_total",
        "counter",
        "links of indexes that do not lead through larder, counted whenever a form of such an index is made; the log names the first of each index",
    ),
    (
        "larder_repository_members_skipped_total",
        "counter",
        "times that this member was left out of a virtual repository's index because it had none to give",
    ),
    (
        "larder_repository_malformed_documents_total",
        "counter",
        "indexes that could not be used",
    ),
    (
        "larder_repository_denied_total",
        "counter",
        "requests refused by patterns",
    ),
    (
        "larder_repository_pattern_limits_total",
        "counter",
        "requests refused because a pattern ran into its step limit",
    ),
    (
        "larder_repository_quarantined_total",
        "counter",
        "requests answered 404 by quarantine",
    ),
    (
        "larder_repository_upstream_quota_limit",
        "gauge",
        "requests that the upstream allows in its window, as it last said; not there for upstreams that say nothing",
    ),
    (
        "larder_repository_upstream_quota_remaining",
        "gauge",
        "requests that the upstream still allows in its window, as it last said",
    ),
    (
        "larder_repository_held_bytes",
        "gauge",
        "bytes of the documents and files that are held, as they were last counted; what several repositories share is counted with each",
    ),
    (
        "larder_repository_held_files",
        "gauge",
        "documents and files that are held, as they were last counted",
    ),
    (
        "larder_upstream_failures_total",
        "counter",
        "failures of the repository's upstreams by cause; a 404 is none",
    ),
    // Of each mirror.
    (
        "larder_upstream_up",
        "gauge",
        "1 while the upstream answers, 0 while it fails; not there before it was asked",
    ),
    (
        "larder_mirror_requests_total",
        "counter",
        "requests sent to it",
    ),
    (
        "larder_mirror_failures_total",
        "counter",
        "no answer, 5xx, 429, refused credentials, a body that was cut or wrong",
    ),
    (
        "larder_mirror_probes_total",
        "counter",
        "requests behind the scenes that asked whether it is back",
    ),
    (
        "larder_mirror_first_byte_seconds",
        "histogram",
        "time to the first byte of its answers, redirects included",
    ),
    (
        "larder_mirror_index_lag_seconds",
        "gauge",
        "how much older its index is than the newest that a mirror of the repository gave, by `Last-Modified`; not there where that is not known",
    ),
    (
        "larder_mirror_healthy",
        "gauge",
        "0 while it is put aside after a failure; of an only one: after three failures in a row, until it answers",
    ),
    // Of the node.
    (
        "larder_build_info",
        "gauge",
        "always 1; `version` is larder's",
    ),
    (
        "larder_disk_free_bytes",
        "gauge",
        "bytes that larder may still write to the file system of its data directory",
    ),
    (
        "larder_disk_total_bytes",
        "gauge",
        "size of that file system",
    ),
    (
        "larder_disk_reserve_bytes",
        "gauge",
        "with less than this free, downloads are served and not kept",
    ),
    (
        "larder_kept_bytes",
        "gauge",
        "bytes of all that is kept but uploaded files, as they were last counted and added to; not there without `limits.disk`",
    ),
    (
        "larder_kept_limit_bytes",
        "gauge",
        "`limits.disk` in bytes; not there without it",
    ),
    (
        "larder_repository_limit_bytes",
        "gauge",
        "`max_disk` of the repositories that have one",
    ),
    (
        "larder_object_store_up",
        "gauge",
        "1 if the S3 store answered when it was asked last, and refused neither larder's credentials nor its bucket, else 0; this and the next six are not there without `s3`",
    ),
    (
        "larder_object_store_mismatches_total",
        "counter",
        "blocks of stored objects that had other bytes than were stored, and were not given",
    ),
    (
        "larder_object_store_redirects_total",
        "counter",
        "clients that were sent to the S3 store with a presigned URL",
    ),
    (
        "larder_tier_bytes",
        "gauge",
        "bytes of the blobs in the local tier",
    ),
    (
        "larder_tier_limit_bytes",
        "gauge",
        "bytes that the local tier may hold now",
    ),
    (
        "larder_tier_fills_total",
        "counter",
        "blobs that were fetched from the S3 store into the local tier",
    ),
    (
        "larder_tier_evicted_blobs_total",
        "counter",
        "blobs that were taken out of the local tier to make room",
    ),
    (
        "larder_tier_spoilt_blobs_total",
        "counter",
        "blobs that a scrub took out of the local tier because they were not what they should be",
    ),
    (
        "larder_config_reload_success",
        "gauge",
        "1 if the configuration was usable when it was last loaded, else 0",
    ),
    (
        "larder_config_last_reload_timestamp_seconds",
        "gauge",
        "when the configuration was last loaded, at the start or by a reload",
    ),
    (
        "larder_certificate_expiry_timestamp_seconds",
        "gauge",
        "when larder's own certificate expires; not there without `tls`",
    ),
    ("larder_derivations_total", "counter", "documents rewritten"),
    (
        "larder_evicted_files_total",
        "counter",
        "held documents and files of all repositories that went to keep to `limits.disk` or `max_disk`",
    ),
    (
        "larder_evicted_bytes_total",
        "counter",
        "bytes of the evicted documents and files",
    ),
    (
        "larder_scrub_blobs_total",
        "counter",
        "stored blobs that scrubs on this replica have read again",
    ),
    ("larder_scrub_bytes_total", "counter", "their bytes"),
    (
        "larder_scrub_damaged_total",
        "counter",
        "blobs of them that were missing, unreadable or had other bytes",
    ),
    (
        "larder_scrub_refetched_total",
        "counter",
        "documents and files that scrubs dropped and fetched again at once",
    ),
    (
        "larder_scrub_local_damaged_total",
        "counter",
        "uploaded files that scrubs found damaged, each time that they did: larder has no other copy",
    ),
    (
        "larder_gc_blobs_deleted_total",
        "counter",
        "unreferenced blobs that the collector deleted",
    ),
    (
        "larder_gc_bytes_freed_total",
        "counter",
        "bytes that this freed",
    ),
    (
        "larder_metadata_damaged_rows_total",
        "counter",
        "rows of the database that were not what had been put there; each counted as absent. Anything but 0: check disk and memory",
    ),
    (
        "larder_metadata_damage_failures_total",
        "counter",
        "statements that failed because the database file is damaged",
    ),
    (
        "larder_metadata_put_aside_total",
        "counter",
        "damaged databases put aside, after which the cache began anew",
    ),
    // Of the process, under the names that Prometheus' client libraries use.
    (
        "process_cpu_seconds_total",
        "counter",
        "user and system processor time in seconds",
    ),
    ("process_resident_memory_bytes", "gauge", "memory in use"),
    (
        "process_virtual_memory_bytes",
        "gauge",
        "address space in use",
    ),
    ("process_open_fds", "gauge", "open file descriptors"),
    (
        "process_max_fds",
        "gauge",
        "file descriptors that may be open",
    ),
    ("process_threads", "gauge", "threads"),
    (
        "process_start_time_seconds",
        "gauge",
        "when the process started",
    ),
];

/// The sentence of a metric, as plain text; empty if it has none.
pub(super) fn sentence(name: &str) -> String {
    let found = HELP.iter().find(|(known, ..)| *known == name);
    found.map_or_else(String::new, |(.., sentence)| sentence.replace('`', ""))
}

#[cfg(test)]
#[path = "help_tests.rs"]
mod tests;
