//! The API's own description, checked in as a file. The test below holds it to the URL table.

/// `GET /api/openapi.json`.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::{ROUTES, Route};

    /// The routes that are for clients; replicas know their own.
    fn routes() -> impl Iterator<Item = &'static Route> {
        ROUTES
            .iter()
            .filter(|route| !route.template.starts_with("/internal/"))
    }

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods
                    .map(|method| (path.clone(), method.to_uppercase()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> = routes()
            .flat_map(|route| {
                route
                    .methods
                    .iter()
                    .map(|method| (route.template.to_owned(), method.to_string()))
            })
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        for route in routes() {
            let operation =
                &document["paths"][route.template][route.methods[0].as_str().to_lowercase()];
            for name in route
                .template
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            {
                let reference = format!("#/components/parameters/{name}");
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters
                        .iter()
                        .any(|parameter| parameter["$ref"] == reference.as_str()),
                    "{}: {name}",
                    route.template
                );
            }
        }
    }
}
