//! What people may ask of the running program over HTTP: to pause and to go on.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use takhin_runtime::Published;
use takhin_runtime::telemetry::http::{Answer, Call, Endpoints};
use tracing::info;

use crate::metrics;

/// Whether nothing is to be written for now; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pause(Published<bool>);

impl Pause {
    /// Whether it is paused.
    pub fn is_on(&self) -> bool {
        self.0.get()
    }

    /// Pauses, or goes on.
    pub fn set(&self, is_on: bool) {
        metrics::PAUSED.set(i64::from(is_on));
        self.0.update(|paused| *paused = is_on);
    }

    /// Returns when it is no longer as it `was`.
    pub async fn changed(&self, was: bool) {
        self.0.wait_for(|paused| *paused != was).await;
    }
}

/// `/v1/pause` and `/v1/resume`, for programs of this machine.
#[derive(Debug)]
pub struct Control {
    pause: Pause,
    /// Whether only this machine reaches the address.
    is_loopback: bool,
}

impl Control {
    /// The endpoints of an address.
    pub fn new(pause: Pause, address: IpAddr) -> Self {
        Self {
            pause,
            is_loopback: address.is_loopback(),
        }
    }

    fn decide(&self, call: &Call) -> (u16, String) {
        if !self.is_loopback {
            let why = "only where admin.bind is a loopback address: nobody is asked who they are";
            return refused(403, why);
        }
        if is_from_a_page(call) {
            return refused(403, "not from web pages");
        }
        match (call.method.as_str(), call.path.as_str()) {
            ("POST", path @ ("/v1/pause" | "/v1/resume")) => {
                let is_on = path == "/v1/pause";
                info!(paused = is_on, "told over HTTP");
                self.pause.set(is_on);
            }
            ("GET", "/v1/pause") => {}
            _ => return refused(404, "there are POST /v1/pause, POST /v1/resume and GET /v1/pause"),
        }
        (200, format!("{{\"paused\":{}}}\n", self.pause.is_on()))
    }
}

impl Endpoints for Control {
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let (status, body) = self.decide(&call);
            Answer {
                status,
                content_type: "application/json",
                headers: Vec::new(),
                body,
            }
        })
    }
}

/// The reasons are ours, and need no escapes.
fn refused(status: u16, why: &str) -> (u16, String) {
    (status, format!("{{\"error\":\"{why}\"}}\n"))
}

/// A browser on this machine runs pages of anybody, and lets them send requests here. Those name their origin, or call this
/// machine by a name of their own (DNS rebinding).
fn is_from_a_page(call: &Call) -> bool {
    let is_own = |site: &[u8]| site == b"none" || site == b"same-origin";
    call.header("origin").is_some()
        || !call.header("sec-fetch-site").is_none_or(is_own)
        || !call.header("host").is_none_or(is_local)
}

/// Whether a `Host` header names this machine from within.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn programs_of_this_machine_may_and_nobody_else() {
        let pause = Pause::default();
        let control = Control::new(pause.clone(), Ipv4Addr::LOCALHOST.into());
        let call = || Call::new("POST", "/v1/pause").with_header("host", "localhost:9654");
        for page in [
            call().with_header("origin", "http://example.com"),
            call().with_header("sec-fetch-site", "cross-site"),
            Call::new("POST", "/v1/pause").with_header("host", "example.com:9654"),
        ] {
            assert_eq!(control.decide(&page).0, 403);
        }
        let open = Control::new(pause.clone(), Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(open.decide(&call()).0, 403);
        assert_eq!(control.decide(&Call::new("DELETE", "/v1/pause")).0, 404);
        assert!(!pause.is_on());
        assert_eq!(control.decide(&call()), (200, "{\"paused\":true}\n".to_owned()));
        assert!(pause.is_on());
        let (_, state) = control.decide(&Call::new("POST", "/v1/resume"));
        assert_eq!(state, "{\"paused\":false}\n");
    }
}
