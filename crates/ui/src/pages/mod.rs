//! The pages. Each file has the data of one page, public and serializable, and makes it a page by its template.

mod configuration;
mod explain;
mod flush;
mod health;
mod jobs;
mod login;
mod message;
mod outage;
mod overview;
mod repositories;
mod repository;
mod trends;

pub use configuration::{Configuration, Key, Keys, Warning};
pub use explain::{Explain, Explained, Step};
pub use flush::{Flush, Flushed};
pub use health::{
    Backend, Certificate, Health, Limit, Refusals, Reload, Replica, Replicas, UpstreamRow,
};
pub use jobs::{Job, JobItem, JobSummary, Jobs};
pub use login::Login;
pub use message::Message;
pub use outage::{Missing, Outage};
pub use overview::{Allowance, Disk, Flight, Live, Overview, Problem, RecentError};
pub use repositories::{Repositories, RepositoryRow};
pub use repository::{
    Counter, Facts, Mirror, RefusedGroup, Repository, RepositoryHead, Rule, SetUp, Tab,
};
pub use trends::{Trend, Trends};
