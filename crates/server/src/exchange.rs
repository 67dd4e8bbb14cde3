//! One request on its way to a handler, and what a handler gives back.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};
use larder_core::{Mount, Principal, Repository};
use larder_engine::ArtifactRequest;

use crate::body::ResponseBody;
use crate::forwarded::Client;
use crate::metrics::RequestKind;
use crate::state::{Connection, Shared};

/// One request on its way to a handler.
pub(crate) struct Exchange<'a, B> {
    pub(crate) backend: &'a Arc<B>,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) connection: &'a Connection,
    pub(crate) head: &'a request::Parts,
    /// The `Host` that was used.
    pub(crate) host: &'a str,
    pub(crate) client: &'a Client,
    /// On whose behalf it is made.
    pub(crate) principal: Principal,
}

impl<B> Exchange<'_, B> {
    /// The question to the pipeline for a raw path below a repository that this client sees at `mount`.
    pub(crate) fn request<'r>(
        &'r self,
        repository: &'r str,
        raw_path: &'r str,
        mount: Mount<'r>,
        body: Bytes,
    ) -> ArtifactRequest<'r> {
        ArtifactRequest {
            repository,
            raw_path,
            query: self.head.uri.query(),
            method: &self.head.method,
            headers: &self.head.headers,
            principal: self.principal,
            mount,
            body,
        }
    }
}

/// A response with what the log says of it.
pub(crate) struct Handled {
    pub(crate) response: Response<ResponseBody>,
    pub(crate) kind: RequestKind,
    /// The repository that was addressed, if there is one of that name.
    pub(crate) repository: Option<Arc<Repository>>,
}

impl Handled {
    pub(crate) fn other(response: Response<ResponseBody>) -> Self {
        Self {
            response,
            kind: RequestKind::Other,
            repository: None,
        }
    }
}
