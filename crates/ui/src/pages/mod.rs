//! The pages. Each file has the data of one page, public and serializable, and makes it a page by its template.

mod artifact;
mod browse;
mod configuration;
mod explain;
mod flush;
mod health;
mod image;
mod jobs;
mod login;
mod message;
mod outage;
mod overview;
mod package;
mod repositories;
mod repository;
mod search;
mod trends;
mod view;

pub use artifact::{
    Artifact, HeldCopy as ArtifactCopy, ImageOf, Naming as ArtifactNaming, PackageOf,
    Stated as ArtifactStated,
};
pub use browse::{Browse, File as BrowseFile};
pub use configuration::{Configuration, Key, Keys, Warning};
pub use explain::{Explain, Explained, Step};
pub use flush::{Flush, Flushed};
pub use health::{
    Backend, Certificate, Health, Limit, Refusals, Reload, Replica, Replicas, UpstreamRow,
};
pub use image::{Image, Manifest as ImageManifest, Part as ImagePart, Reference as ImageReference};
pub use jobs::{Job, JobItem, JobSummary, Jobs};
pub use login::Login;
pub use message::Message;
pub use outage::{Missing, Outage};
pub use overview::{Allowance, Disk, Flight, Live, Overview, Problem, RecentError};
pub use package::{Member as PackageMember, Package, PackageFile, Tag as PackageTag};
pub use repositories::{Repositories, RepositoryRow};
pub use repository::{
    Counter, Facts, Lag, Mirror, RefusedGroup, Repository, RepositoryHead, Rule, SetUp, Tab,
};
pub use search::{Hit as SearchFound, Search};
pub use trends::{Trend, Trends};
