//! What archives are made of and read into (`larder export`, `larder import`): `GET` and `POST /api/v1/archive/{repo}` give and take rows,
//! `GET` and `PUT /api/v1/blobs/{digest}` bytes. It is for operators, reading too: whoever exports gets all that there is.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_budget::{BudgetKind, Refused};
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, ErrorCode, Fault, FaultKind};
use larder_engine::{Archive, ArchiveRow, HeldCursor, UploadPart};
use serde_json::{Value, json};

use crate::admin::{json_response, text};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::discovery::{cursor_of, cursor_text};
use crate::dispatch::guard;
use crate::exchange::{Exchange, Handled};
use crate::problem::{self, Audience};
use crate::request_body;

/// The longest list of rows, in bytes.
const MOST_BODY: u64 = 10 << 20;
/// When a client that found no place should ask again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Stands between path and form in a cursor; no path has it.
const BETWEEN: char = '\n';

/// `/api/v1/archive/{repo}`.
pub(crate) async fn serve_rows<B: Backend>(
    exchange: &Exchange<'_, B>,
    repository: &str,
    body: &mut Incoming,
) -> Handled {
    let answered = async {
        let archive = opened(exchange)?;
        if exchange.head.method == Method::POST {
            take_rows(exchange, archive, repository, body).await
        } else {
            give_rows(exchange, archive, repository).await
        }
    };
    handled(exchange, answered.await)
}

/// `/api/v1/blobs/{digest}`.
pub(crate) async fn serve_blob<B: Backend>(
    exchange: &Exchange<'_, B>,
    digest: &str,
    body: &mut Incoming,
) -> Handled {
    let answered = async {
        let archive = opened(exchange)?;
        let blob = meant(exchange, digest)?;
        if exchange.head.method == Method::PUT {
            take_blob(exchange, archive, &blob, body).await
        } else {
            give_blob(archive, &blob).await
        }
    };
    handled(exchange, answered.await)
}

fn handled<B: Backend>(
    exchange: &Exchange<'_, B>,
    answered: Result<Response<ResponseBody>, Fault>,
) -> Handled {
    let response = answered.unwrap_or_else(|fault| {
        problem::response(&**exchange.backend, &fault, Audience::Repository(None))
    });
    Handled::other(response)
}

/// Only those may read here who may change state.
fn opened<'e, B: Backend>(exchange: &'e Exchange<'_, B>) -> Result<&'e Archive, Fault> {
    guard(exchange).map_err(|mut fault| {
        let gives = "this gives away all that is held";
        fault.message = fault.message.replace("this changes state", gives);
        fault
    })?;
    let archive = exchange.backend.archive();
    archive.ok_or_else(|| Fault::not_built("archives are not built here"))
}

async fn give_rows<B: Backend>(
    exchange: &Exchange<'_, B>,
    archive: &Archive,
    repository: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let mut after = None;
    for (name, value) in parameters(exchange) {
        match &*name {
            "cursor" if after.is_none() => after = Some(place(&value, repository)?),
            _ => return Err(odd_parameter(&name, "cursor")),
        }
    }
    let page = archive.page(repository, after.as_ref()).await?;
    let next = page.next.map(|(path, form)| {
        cursor_text(&HeldCursor {
            repository: repository.to_owned(),
            row: 0,
            path: format!("{path}{BETWEEN}{form}"),
        })
    });
    let answer =
        json!({"rows": page.rows, "next": next, "epoch": page.epoch, "left_out": page.left_out});
    let mut response = json_response(StatusCode::OK, &answer);
    no_store(&mut response);
    Ok(response)
}

/// The path and form that a cursor stands for.
fn place(cursor: &str, repository: &str) -> Result<(String, String), Fault> {
    let cursor = cursor_of(cursor).filter(|cursor| cursor.repository == repository);
    let place = cursor.and_then(|cursor| {
        let (path, form) = cursor.path.rsplit_once(BETWEEN)?;
        Some((path.to_owned(), form.to_owned()))
    });
    place.ok_or_else(|| refuse("cursor is none of this list; begin without one".to_owned()))
}

/// The rows that a body lists.
fn rows_of(body: &[u8]) -> Result<Vec<ArchiveRow>, Fault> {
    let odd = |why: String| {
        refuse(format!(
            "the body is no list of rows as GET gives them ({why}); it is {{\"rows\": […]}}"
        ))
    };
    let mut parsed: Value = serde_json::from_slice(body).map_err(|error| odd(error.to_string()))?;
    let is_alone = parsed.as_object().is_some_and(|keys| keys.len() == 1);
    match parsed.get_mut("rows").map(Value::take) {
        Some(rows) if is_alone => {
            serde_json::from_value(rows).map_err(|error| odd(error.to_string()))
        }
        _ => Err(odd("its one key is \"rows\"".to_owned())),
    }
}

async fn take_rows<B: Backend>(
    exchange: &Exchange<'_, B>,
    archive: &Archive,
    repository: &str,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, Fault> {
    let mut overwrite = None;
    for (name, value) in parameters(exchange) {
        match (&*name, &*value) {
            ("overwrite", "true" | "false") if overwrite.is_none() => {
                overwrite = Some(value == "true");
            }
            _ => return Err(odd_parameter(&name, "overwrite (true or false)")),
        }
    }
    let shared = &exchange.shared;
    let room = (&*shared.budgets, repository);
    let body = request_body::collect(body, MOST_BODY, room, &shared.limits).await?;
    let rows = rows_of(&body)?;
    let taken = archive.take(repository, rows, overwrite == Some(true));
    let taken = taken.await?;
    let left = taken.left.iter();
    let left: Vec<_> = left
        .map(|left| json!({"path": left.path, "why": left.why}))
        .collect();
    let answer = json!({"written": taken.written, "kept": taken.kept, "left": left});
    Ok(json_response(StatusCode::OK, &answer))
}

/// The blob that a request is about.
fn meant<B>(exchange: &Exchange<'_, B>, digest: &str) -> Result<BlobDescriptor, Fault> {
    let digest: Option<Digest> = digest.parse().ok();
    let digest = digest.filter(|digest| digest.algorithm() == DigestAlgorithm::Sha256);
    let digest = digest
        .ok_or_else(|| refuse("a blob is named sha256: and 64 hexadecimal digits".to_owned()))?;
    let mut size = None;
    for (name, value) in parameters(exchange) {
        if name != "size" || size.is_some() {
            return Err(odd_parameter(&name, "size"));
        }
        size = value.parse::<u64>().ok();
        if size.is_none() {
            return Err(refuse(format!(
                "size is {value:?}; it is a number of bytes"
            )));
        }
    }
    let size = size.ok_or_else(|| {
        refuse("say with size how many bytes the blob has, as its row does".to_owned())
    })?;
    Ok(BlobDescriptor { digest, size })
}

async fn give_blob(
    archive: &Archive,
    blob: &BlobDescriptor,
) -> Result<Response<ResponseBody>, Fault> {
    let body = archive.blob(blob).await?;
    let mut response = Response::new(ResponseBody::sized(body, blob.size));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    no_store(&mut response);
    Ok(response)
}

async fn take_blob<B: Backend>(
    exchange: &Exchange<'_, B>,
    archive: &Archive,
    blob: &BlobDescriptor,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, Fault> {
    let limits = &exchange.shared.limits;
    let (budgets, patience) = (&exchange.shared.budgets, limits.upload_patience);
    let place = budgets.lease_within(BudgetKind::Uploads, "", 1, patience);
    let place = place.await.map_err(busy)?;
    let stream = request_body::stream(body, limits, &place);
    // Whose digest is known needs none behind it.
    let bytes = stream.filter_map(|part| {
        std::future::ready(match part {
            Ok(UploadPart::Data(bytes)) => Some(Ok(bytes)),
            Ok(UploadPart::Trailers(_)) => None,
            Err(fault) => Some(Err(fault)),
        })
    });
    archive.take_blob(blob, bytes).await?;
    Ok(text(StatusCode::NO_CONTENT, "text/plain", ""))
}

fn busy(_: Refused) -> Fault {
    let message =
        "as many uploads as larder takes at once are being received; send it again in a moment";
    Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message).retry_after(Some(ASK_AGAIN))
}

fn parameters<'e, B>(
    exchange: &'e Exchange<'_, B>,
) -> impl Iterator<Item = (std::borrow::Cow<'e, str>, std::borrow::Cow<'e, str>)> {
    let query = exchange.head.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
}

fn no_store(response: &mut Response<ResponseBody>) {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
}

fn odd_parameter(name: &str, known: &str) -> Fault {
    refuse(format!(
        "the parameter {name:?} is unknown, given twice, or cannot be this; known is {known}"
    ))
}

fn refuse(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule("archive")
}
