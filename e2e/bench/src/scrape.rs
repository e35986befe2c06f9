//! What a broker says of itself on `/metrics`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Most bytes that are read of an answer.
const MOST: u64 = 16 << 20;

/// The series without labels of that name that is served at `admin`; `None` where there is no such, or nobody answers.
pub(crate) fn value(admin: SocketAddr, name: &str) -> Option<f64> {
    value_in(&text(admin).ok()?, name)
}

fn value_in(text: &str, name: &str) -> Option<f64> {
    let rest = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    text.lines().find_map(rest)?
}

fn text(addr: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream
        .take(MOST)
        .read_to_string(&mut text)
        .context("reading metrics")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_its_whole_name() {
        let text = "# TYPE a gauge\na_total 3\na{b=\"c\"} 2\na 1.5\n";
        assert_eq!(value_in(text, "a"), Some(1.5));
        assert_eq!(value_in(text, "a_total"), Some(3.0));
        assert_eq!(value_in(text, "b"), None);
    }
}
