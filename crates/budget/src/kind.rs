//! The words for what is scarce.

/// What is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// Downloads of files.
    Downloads,
    /// Downloads of documents, and of the files that belong to them.
    Documents,
    /// Those of them that are long, while their bytes come in. Who waits for this in vain goes on without.
    Arrivals,
    /// Questions to upstreams that bring no file: HEAD, and what is passed through.
    Heads,
    /// Documents that are read, checked or rewritten.
    Parsers,
    /// Bytes of these documents.
    ParsedBytes,
    /// Bytes of downloads that are not kept, on their way to readers.
    UnkeptBytes,
    /// Files that have arrived and wait to be committed: each is open. Who waits for room there in vain goes on without.
    Spools,
    /// The same of documents: files wait for their documents, so documents do not wait for files.
    DocumentSpools,
    /// Host names that are looked up.
    Lookups,
    /// Uploads that are received.
    Uploads,
    /// Bytes of request bodies that are read into memory.
    RequestBytes,
    /// Bytes of objects that are in memory on their way to the object store.
    StoreParts,
    /// Files that jobs fetch.
    JobFiles,
    /// Pages that are kept up to date while somebody looks at them.
    PageStreams,
    /// Requests to one upstream host, where the operator has set a bound: not one of [`ALL`](Self::ALL), but a pool for each host.
    UpstreamRequests,
}

impl BudgetKind {
    /// All of which there is one pool, in the order in which they are declared and reported.
    pub const ALL: [Self; 15] = [
        Self::Downloads,
        Self::Documents,
        Self::Arrivals,
        Self::Heads,
        Self::Parsers,
        Self::ParsedBytes,
        Self::UnkeptBytes,
        Self::Spools,
        Self::DocumentSpools,
        Self::Lookups,
        Self::Uploads,
        Self::RequestBytes,
        Self::StoreParts,
        Self::JobFiles,
        Self::PageStreams,
    ];

    /// The word for it in metrics and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Documents => "documents",
            Self::Arrivals => "arrivals",
            Self::Heads => "heads",
            Self::Parsers => "parsers",
            Self::ParsedBytes => "parsed_bytes",
            Self::UnkeptBytes => "unkept_bytes",
            Self::Spools => "spools",
            Self::DocumentSpools => "document_spools",
            Self::Lookups => "lookups",
            Self::Uploads => "uploads",
            Self::RequestBytes => "request_bytes",
            Self::StoreParts => "store_parts",
            Self::JobFiles => "job_files",
            Self::PageStreams => "page_streams",
            Self::UpstreamRequests => "upstream_requests",
        }
    }
}

/// How one thing is used at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// What it is.
    pub kind: BudgetKind,
    /// How much there is, in places or bytes.
    pub limit: u64,
    /// How much is in use.
    pub held: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// How many have waited in vain, or were not let wait, since the process began.
    pub refused: u64,
    /// How many leases were given up because they were hardly used and others waited, since the process began.
    pub yielded: u64,
}
