//! Helm chart repositories.

use larder_core::{BuiltIn, Repository};

use crate::{Claim, Derived, Document, Format, Form, Links, Malformed, Operation, Read, RequestParts, SourceBase, SourceSpec};

/// Helm chart repositories.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Helm;

impl Format for Helm {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        let source = SourceSpec {
            base: SourceBase::Files,
            path: request.path.encoded().to_owned(),
            query: None,
            key_path: request.path.as_str().to_owned(),
            accept: None,
            variant: "",
            is_document: false,
        };
        Operation::Read(Read { source, form: Form::Verbatim, bypass_cache: false })
    }

    fn built_in(&self, _repository: &Repository, _path: &str) -> BuiltIn {
        BuiltIn::None
    }

    fn subject<'p>(&self, _path: &'p str) -> Option<&'p str> {
        None
    }

    fn named_by(&self, _repository: &Repository, _path: &str) -> Option<SourceSpec> {
        None
    }

    fn check(&self, _repository: &Repository, _document: &Document<'_>) -> Result<(), Malformed> {
        Ok(())
    }

    fn claims(&self, _document: &Document<'_>, _links: &Links<'_>, _sink: &mut dyn FnMut(Claim)) -> Result<(), Malformed> {
        Ok(())
    }

    fn derive(&self, _document: &Document<'_>, form: &'static str, _links: &Links<'_>) -> Result<Derived, Malformed> {
        Err(Malformed(format!("there is no form {form:?}")))
    }

    fn varies_by(&self, _path: &str) -> &'static [&'static str] {
        &[]
    }

    fn absolute_links(&self) -> bool {
        false
    }

    fn rewriter_version(&self) -> u32 {
        1
    }
}
