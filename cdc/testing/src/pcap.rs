//! Captured packets: libpcap files of Ethernet frames with IPv4 and TCP.

use anyhow::{Context, Result, ensure};

/// A TCP segment with payload, or the beginning of a direction.
pub(crate) struct Segment<'a> {
    /// Source port.
    pub(crate) from: u16,
    /// Destination port.
    pub(crate) to: u16,
    /// Number of its first byte.
    pub(crate) sequence: u32,
    /// Whether it begins the direction.
    pub(crate) is_syn: bool,
    /// Its bytes.
    pub(crate) payload: &'a [u8],
}

const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const ETHERNET: usize = 14;

/// All TCP segments of a capture, in order of time.
pub(crate) fn segments(file: &[u8]) -> Result<Vec<Segment<'_>>> {
    let magic = file.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    ensure!(
        matches!(magic, Some(0xa1b2_c3d4 | 0xa1b2_3c4d)),
        "no capture: {magic:x?}"
    );
    let mut rest = file.get(FILE_HEADER..).context("no file header")?;
    let mut segments = Vec::new();
    while !rest.is_empty() {
        let header = rest
            .first_chunk::<PACKET_HEADER>()
            .context("a packet header is cut")?;
        let captured = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let packet = rest
            .get(PACKET_HEADER..PACKET_HEADER + captured)
            .context("a packet is cut")?;
        rest = &rest[PACKET_HEADER + captured..];
        segments.extend(segment(packet));
    }
    Ok(segments)
}

fn segment(packet: &[u8]) -> Option<Segment<'_>> {
    let ip = packet.get(ETHERNET..)?;
    let is_tcp_over_ipv4 = packet[12..14] == [8, 0] && ip.first()? >> 4 == 4 && *ip.get(9)? == 6;
    if !is_tcp_over_ipv4 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let tcp = ip.get(usize::from(ip[0] & 15) * 4..total)?;
    let u16_at = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    Some(Segment {
        from: u16_at(0)?,
        to: u16_at(2)?,
        sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
        is_syn: tcp.get(13)? & 2 != 0,
        payload,
    })
}
