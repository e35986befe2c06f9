//! Lies below the level of records: lengths, counts, versions, and clients that do not read (I-1 to I-5).

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;
use takhin_e2e::wire::{Connection, Reader, Writer, api, frame, produce_body, request};

use super::survive;
use crate::suite::Context;

const UNSUPPORTED_VERSION: i16 = 35;

/// I-1: a length that cannot be, and content that is no request, close the connection.
pub(super) fn false_lengths(context: &Context) -> Result<()> {
    survive(context, |broker| {
        for length in [i32::MIN, -1, i32::MAX, 0x7fff_0000, (100 << 20) + 1] {
            let mut connection = Connection::open(broker.address())?;
            connection.send(&length.to_be_bytes())?;
            ensure!(connection.is_closed_by_broker()?, "length {length} was accepted");
        }
        let garbage = Rng::new(5).bytes(64);
        for content in [&b""[..], &[0], &[0, 18, 0], &garbage] {
            let mut connection = Connection::open(broker.address())?;
            connection.send(&frame(content))?;
            ensure!(
                connection.is_closed_by_broker()?,
                "a frame of {} bytes was answered",
                content.len()
            );
        }
        // A different protocol altogether: "GET " is a length of more than a gigabyte.
        let mut connection = Connection::open(broker.address())?;
        connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        ensure!(connection.is_closed_by_broker()?, "HTTP was answered");
        Ok(())
    })
}

/// I-3: ApiVersions from the future answers in version 0 with its own range (N3); anything else unknown closes (N4).
pub(super) fn unknown_requests(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = Connection::open(broker.address())?;
        connection.send(&request(
            api::API_VERSIONS,
            99,
            7,
            b"\x00whatever version 99 may hold",
        ))?;
        let answer = connection.receive()?.unwrap_or_default();
        let mut r = Reader(&answer);
        ensure!(r.i32()? == 7, "the correlation id");
        ensure!(
            r.i16()? == UNSUPPORTED_VERSION,
            "ApiVersions v99 must answer UNSUPPORTED_VERSION"
        );
        let entries: Vec<[i16; 3]> = (0..r.i32()?)
            .map(|_| Ok([r.i16()?, r.i16()?, r.i16()?]))
            .collect::<Result<_>>()?;
        ensure!(r.0.is_empty(), "a body that is not version 0");
        let own = entries.iter().find(|entry| entry[0] == api::API_VERSIONS);
        ensure!(
            own.is_some_and(|e| e[1] == 0 && e[2] >= 3),
            "no range for ApiVersions in {entries:?}"
        );
        let again = connection.call(api::API_VERSIONS, 0, &[])?;
        ensure!(
            Reader(&again).i16()? == 0,
            "the connection must live on for the next try"
        );

        for (key, version) in [
            (9999, 0),
            (-1, 0),
            (i16::MAX, 3),
            (api::METADATA, 99),
            (api::FETCH, -1),
        ] {
            let mut connection = Connection::open(broker.address())?;
            connection.send(&request(key, version, 1, &[]))?;
            ensure!(
                connection.is_closed_by_broker()?,
                "api {key} version {version} was answered"
            );
        }
        Ok(())
    })
}

/// I-2: a count of 2^31 in a frame of a few bytes. Nothing may be allocated for it.
pub(super) fn false_counts(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut topics = Writer::default();
        topics.i32(i32::MAX);
        let mut partitions = Writer::default();
        partitions
            .i16(-1)
            .i16(-1)
            .i32(1000)
            .i32(1)
            .string("t")?
            .i32(i32::MAX);
        let mut records = Writer::default();
        records
            .i16(-1)
            .i16(-1)
            .i32(1000)
            .i32(1)
            .string("t")?
            .i32(1)
            .i32(0)
            .i32(i32::MAX);
        let mut create = Writer::default();
        create.i32(i32::MAX).string("t")?;
        // Flexible versions: a count as unsigned varint, then a tag section that claims 2^32 - 1 fields.
        let compact = [&[0][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        let tags = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let requests = [
            (api::METADATA, 1, &topics.0[..]),
            (api::PRODUCE, 7, &partitions.0),
            (api::PRODUCE, 7, &records.0),
            (api::CREATE_TOPICS, 2, &create.0),
            (api::METADATA, 12, &compact),
            (api::API_VERSIONS, 3, &tags),
            (
                api::PRODUCE,
                9,
                &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ];
        for (key, version, body) in requests {
            // Many at once: what is allocated for one and not used would show.
            let mut connections = Vec::new();
            for _ in 0..20 {
                let mut connection = Connection::open(broker.address())?;
                connection.send(&request(key, version, 1, body))?;
                connections.push(connection);
            }
            for mut connection in connections {
                let answer = connection.receive()?;
                // ApiVersions alone may say what is wrong; for the rest there is no body to say it in.
                let closed = answer.is_none() || key == api::API_VERSIONS;
                ensure!(closed, "api {key} version {version} was answered");
            }
        }
        Ok(())
    })
}

/// I-5: 10,000 requests before the first answer is read; all are answered, in order.
pub(super) fn pipelining(context: &Context) -> Result<()> {
    const REQUESTS: i32 = 10_000;
    survive(context, |broker| {
        let mut all = Vec::new();
        for correlation in 0..REQUESTS {
            // All topics: answers much larger than requests.
            all.extend(request(api::METADATA, 1, correlation, &(-1_i32).to_be_bytes()));
        }
        let before = broker.resident_bytes()?;
        let mut connection = Connection::open(broker.address())?;
        let mut sending = connection.sender()?;
        // A broker that stops reading makes this wait: it must not be the thread that reads.
        let sender = std::thread::spawn(move || sending.write_all(&all));
        let mut most = before;
        for expected in 0..REQUESTS {
            if expected == 0 {
                // Until here nothing was read, and the broker has either taken all or stopped reading.
                most = most.max(settled(broker)?);
            }
            let answer = connection.receive()?.unwrap_or_default();
            let correlation = Reader(&answer).i32()?;
            ensure!(
                correlation == expected,
                "answer {correlation} where {expected} was due"
            );
        }
        ensure!(sender.join().is_ok_and(|sent| sent.is_ok()), "sending failed");
        if broker.kind() == takhin_e2e::Kind::Takhin {
            ensure!(
                most <= before + super::GROWTH_MAX,
                "memory went from {before} to {most} bytes"
            );
        }
        Ok(())
    })
}

/// Resident memory once it no longer changes from one look to the next.
fn settled(broker: &takhin_e2e::Broker) -> Result<u64> {
    let mut last = 0;
    let mut same = 0;
    takhin_e2e::wait::value("steady memory", Duration::from_secs(10), || {
        let now = broker.resident_bytes()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same >= 20).then_some(now))
    })
}

/// I-4: connections that say nothing, half a length, half a frame, or that hang up in the middle.
pub(super) fn half_open(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let batch = takhin_e2e::records::batch(&[&[7; 500_000]], super::batches::NOW)?;
        let produce = request(api::PRODUCE, 7, 1, &produce_body("bystander", 0, &batch)?);
        let mut idle = Vec::new();
        for i in 0..600 {
            let mut stream = TcpStream::connect(broker.address())?;
            match i % 3 {
                0 => {}
                1 => stream.write_all(&[0, 0])?,
                // The length of half a megabyte is known, its content never comes.
                _ => stream.write_all(&produce[..100])?,
            }
            idle.push(stream);
        }
        // With all of these open a new client is served.
        super::serve(broker)?;
        drop(idle);
        for cut in [1, 4, 20, produce.len() / 2, produce.len() - 1] {
            let mut connection = Connection::open(broker.address())?;
            connection.send(&produce[..cut])?;
            connection.finish_sending()?;
            ensure!(
                connection.is_closed_by_broker()?,
                "{cut} bytes of a frame were answered"
            );
        }
        Ok(())
    })
}
