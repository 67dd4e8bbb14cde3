//! Folders and packages, of a repository itself or of the members of a virtual one, which holds nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_core::{Fault, FaultKind, RepositoryName};

use super::base::{Views, is_virtual, not_held};
use super::folder::{FolderFile, FolderPage, FolderRequest};
use super::package::{Named, OfOne, PackageRequest, PackageView};
use crate::origin::virtual_;
use crate::repositories::RepositoryState;

/// Something in a folder of a virtual repository.
struct Child {
    /// `None`: a folder.
    file: Option<FolderFile>,
    holders: Vec<String>,
}

impl Views {
    /// A page of a folder. It may be shorter than asked for and still have a next one.
    ///
    /// # Errors
    /// There is no such repository, nothing is held below the folder (404), or storage fails.
    pub async fn folder(&self, request: &FolderRequest) -> Result<FolderPage, Fault> {
        let entry = self.entry(&request.repository)?;
        let folder = &*request.folder;
        let page = if is_virtual(&entry) {
            self.merged_folder(&entry, request).await?
        } else {
            self.own_folder(&entry, request).await?
        };
        let is_empty = page.folders.is_empty() && page.files.is_empty();
        if is_empty && page.next.is_none() && request.after.is_none() && !folder.is_empty() {
            let message = format!("{} holds nothing below this folder", entry.repository.name);
            return Err(not_held(&entry, message));
        }
        Ok(page)
    }

    /// The versions of a package.
    ///
    /// # Errors
    /// There is no such repository, its type has no packages or that is no name of one (400), no index of it is held (404), it cannot be
    /// read, or storage fails.
    pub async fn package(&self, request: &PackageRequest) -> Result<PackageView, Fault> {
        let entry = self.entry(&request.repository)?;
        if is_virtual(&entry) {
            return self.merged_package(&entry, request).await;
        }
        self.own_package(&entry, request).await
    }

    /// One level of a virtual repository: what any of its members holds there. Of a file that several hold the first member's is shown.
    async fn merged_folder(
        &self,
        entry: &Arc<RepositoryState>,
        request: &FolderRequest,
    ) -> Result<FolderPage, Fault> {
        let mut children: BTreeMap<String, Child> = BTreeMap::new();
        // A member's page may end early: what stands behind the first such end belongs to the next page.
        let mut edge: Option<String> = None;
        for holder in self.holders(entry) {
            let page = self.own_folder(&holder, request).await?;
            if let Some(end) = page.next.as_deref().map(place_of) {
                edge = Some(edge.map_or_else(|| end.clone(), |edge| edge.min(end.clone())));
            }
            let folders = page
                .folders
                .into_iter()
                .map(|name| (format!("{name}/"), None));
            let files = page
                .files
                .into_iter()
                .map(|file| (file.name.clone(), Some(file)));
            for (place, file) in folders.chain(files) {
                let child = children.entry(place).or_insert_with(|| Child {
                    file,
                    holders: Vec::new(),
                });
                child.holders.push(holder.repository.name.to_string());
            }
        }
        let before = request.after.as_deref().map(place_of);
        let is_of_page = |place: &String| {
            before.as_ref().is_none_or(|before| place > before)
                && edge.as_ref().is_none_or(|edge| place <= edge)
        };
        children.retain(|place, _| is_of_page(place));
        let (mut room, mut page, mut last) = (request.room(), FolderPage::default(), None);
        let mut children = children.into_iter();
        while !room.is_full()
            && let Some((place, child)) = children.next()
        {
            room.take(1 + child.holders.len(), &[&request.folder, &place]);
            match child.file {
                Some(file) => page.files.push(file),
                None => page.folders.push(place.trim_end_matches('/').to_owned()),
            }
            last = Some(place.clone());
            page.holders.insert(place, child.holders);
        }
        let end = match children.next() {
            Some(_) => last,
            None => edge,
        };
        page.next = end.map(|place| match place.strip_suffix('/') {
            Some(folder) => format!("d{folder}"),
            None => format!("f{place}"),
        });
        Ok(page)
    }

    /// A package as the held indexes of the members name it, by the rules of the merged index: a reserved name is that member's, one that an
    /// authoritative member has is taken from it alone, and of one version in several members the first one's files stay.
    async fn merged_package(
        &self,
        entry: &Arc<RepositoryState>,
        request: &PackageRequest,
    ) -> Result<PackageView, Fault> {
        let virtuals = &self.explainer.virtuals;
        let mut found: Vec<(Arc<RepositoryState>, OfOne)> = Vec::new();
        for giver in virtual_::givers_of(virtuals, entry, &request.name, |_| false) {
            match self.offered(&giver, request).await {
                Ok(of_one) => found.push((giver, of_one)),
                Err(fault) if fault.kind == FaultKind::NotFound => {}
                Err(fault) => return Err(fault),
            }
        }
        let is_of = |name: &RepositoryName, all: &[Arc<RepositoryState>]| {
            all.iter().any(|one| one.repository.name == *name)
        };
        let known: Vec<_> = found.iter().map(|(giver, _)| Arc::clone(giver)).collect();
        let has = |name: &RepositoryName| is_of(name, &known);
        let givers = virtual_::givers_of(virtuals, entry, &request.name, has);
        found.retain(|(giver, _)| is_of(&giver.repository.name, &givers));
        if found.is_empty() {
            let message = format!(
                "no member of {} holds an index that names {:?}",
                entry.repository.name, request.name
            );
            return Err(not_held(entry, message));
        }
        let (mut view, mut files) = (PackageView::default(), Vec::new());
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for (giver, of_one) in found {
            let member = giver.repository.name.to_string();
            view.members
                .push((member, of_one.index.key_path().to_owned()));
            for tag in of_one.tags {
                if !view.tags.iter().any(|known| known.0 == tag.0) {
                    view.tags.push(tag);
                }
            }
            let versions = of_one.named.iter().map(Named::version);
            let own: Vec<String> = versions.map(str::to_owned).collect();
            let is_new = |file: &Named| !seen.contains(file.version());
            files.extend(of_one.named.into_iter().filter(is_new));
            seen.extend(own);
        }
        view.total = files.len();
        view.files = self.files_of(files, request).await?;
        Ok(view)
    }
}

/// Where in a folder a position of a page is: the name, a folder's with its slash. So all members' children are in one order.
fn place_of(position: &str) -> String {
    match position.split_at_checked(1) {
        Some(("d", name)) => format!("{name}/"),
        Some((_, name)) => name.to_owned(),
        None => String::new(),
    }
}
