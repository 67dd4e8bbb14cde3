//! What one replica asks another for, as a URL.

use larder_core::{RepositoryName, SourceKey};
use url::form_urlencoded;

/// Where replicas ask each other.
pub const FLIGHT_PATH: &str = "/internal/v1/flight";

/// Asks for a download that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightRequest {
    /// Of what.
    pub key: SourceKey,
    /// Bytes that are there already.
    pub offset: u64,
    /// Who asks: a replica does not wait for itself.
    pub replica: String,
}

impl FlightRequest {
    /// The request's target: path and query.
    pub fn target(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("repository", self.key.repository.as_str())
            .append_pair("path", &self.key.path)
            .append_pair("variant", &self.key.variant)
            .append_pair("offset", &self.offset.to_string())
            .append_pair("replica", &self.replica);
        format!("{FLIGHT_PATH}?{}", query.finish())
    }

    /// Reads a target; `None` if it is none of [`target`](Self::target).
    pub fn parse(target: &str) -> Option<Self> {
        let query = target.strip_prefix(FLIGHT_PATH)?.strip_prefix('?')?;
        let mut fields = [const { None }; 5];
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let at = ["repository", "path", "variant", "offset", "replica"]
                .iter()
                .position(|known| *known == name)?;
            fields[at] = Some(value.into_owned());
        }
        let [repository, path, variant, offset, replica] = fields;
        Some(Self {
            key: SourceKey {
                repository: RepositoryName::parse(&repository?).ok()?,
                path: path?.into(),
                variant: variant?.into(),
            },
            offset: offset?.parse().ok()?,
            replica: replica?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for path in ["a/b.tgz", "ü & ?=#%+/x y", "", "_ext/1/h/a?q=1"] {
            let request = FlightRequest {
                key: SourceKey {
                    repository: RepositoryName::parse("npm").unwrap(),
                    path: path.into(),
                    variant: "v=1".into(),
                },
                offset: u64::MAX,
                replica: "00ff".to_owned(),
            };
            let target = request.target();
            assert!(target.bytes().all(|b| b.is_ascii_graphic()), "{target}");
            assert_eq!(FlightRequest::parse(&target), Some(request));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for target in [
            "/internal/v1/flight",
            "/internal/v1/flight?",
            "/internal/v1/flight?repository=r&path=p&variant=&offset=x&replica=a",
            "/internal/v1/flight?repository=r&path=p&variant=&offset=0",
            "/internal/v1/flight?repository=../r&path=p&variant=&offset=0&replica=a",
            "/internal/v1/flight?repository=r&path=p&variant=&offset=0&replica=a&more=1",
        ] {
            assert_eq!(FlightRequest::parse(target), None, "{target}");
        }
    }
}
