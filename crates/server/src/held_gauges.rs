//! How much each repository holds, as gauges. The numbers are those of the last count: a scrape waits for none.

use std::fmt;

use larder_engine::HeldSize;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// The gauges of one scrape.
#[derive(Debug)]
pub(crate) struct HeldGauges(pub(crate) Vec<HeldSize>);

impl Collector for HeldGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let help =
            "Bytes of the documents and files that a repository holds; bytes that several of them share are counted with each";
        gauge(&mut encoder, "repository_held_bytes", help, self.0.iter().map(|size| (&*size.repository, size.bytes)))?;
        let help = "Documents and files that a repository holds";
        gauge(&mut encoder, "repository_held_files", help, self.0.iter().map(|size| (&*size.repository, size.files)))
    }
}

fn gauge<'s>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'s str, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (repository, value) in values {
        let labels = [("repository", repository)];
        family.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
    }
    Ok(())
}
