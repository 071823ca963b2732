//! Pages over HTTP for those who watch a node: small, few, and only read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::io::blocking;
use crate::listen::accept_on;
use crate::{Io, Limits, Listener, Result};

/// How long a connection may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// 200, 404, 503, ...
    pub status: u16,
    /// Its text.
    pub text: String,
}

/// Gives the page of a path; it may wait.
pub type Pages = Arc<dyn Fn(&str) -> Page + Send + Sync>;

/// Serves pages on a port.
///
/// # Errors
/// If the address cannot be listened on, or others than this machine could reach it and `limits` does not allow that.
pub fn serve_pages(io: &Io, address: &str, limits: Limits, pages: Pages) -> Result<Listener> {
    let readers = limits.connections;
    let lacks = Some(("TLS and a secret, which it never has,", "--insecure-metrics"));
    accept_on(io, address, (limits, readers), lacks, move |stream, _| {
        let pages = pages.clone();
        let service = service_fn(move |request| answer(request, pages.clone()));
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        async move {
            // How it ends is the reader's business.
            let _ = tokio::time::timeout(PATIENCE * 2, connection).await;
        }
    })
}

async fn answer(request: Request<Incoming>, pages: Pages) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let page = if request.method() == Method::GET {
        let path = request.uri().path().to_owned();
        let made = blocking(move || Ok(pages(&path))).await;
        made.unwrap_or_else(|failure| Page { status: 500, text: failure.message })
    } else {
        Page { status: 405, text: "only GET\n".to_owned() }
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = hyper::StatusCode::from_u16(page.status).unwrap_or_default();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}
