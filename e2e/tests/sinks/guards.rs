//! What topics do not show: in which order brokers are asked, that positions are in transactions, and what is said where brokers
//! refuse.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::{Broker, Kind, process, tools, wait};
use takhin_pika_testing::master::{Master, Settings};

use crate::stage::Suites;

/// Keys of requests, as Kafka numbers them.
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const INIT_PRODUCER_ID: i16 = 22;

/// Longest run of one of Kafka's tools.
const TOOL: Duration = Duration::from_secs(60);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("guards::fenced_before_positions_are_read", Kind::Kafka, |_| {
        fenced_first()
    });
    suites.add("guards::not_authorized", Kind::Kafka, |_| not_authorized());
}

/// Stands before a broker, and notes the keys of requests in the order in which they come.
struct Witness {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<i16>>>,
}

impl Witness {
    fn start(broker: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                thread::spawn(move || drop(carry(&client, broker, &noted)));
            }
        });
        Ok(Self { address, seen })
    }

    fn seen(&self) -> Vec<i16> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Carries requests one by one, and answers as they come.
fn carry(mut client: &TcpStream, broker: SocketAddr, seen: &Mutex<Vec<i16>>) -> Result<()> {
    let mut broker = TcpStream::connect(broker)?;
    let (mut answers, mut back) = (broker.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut len = [0; 4];
    while client.read_exact(&mut len).is_ok() {
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(len))?];
        client.read_exact(&mut request)?;
        if let [high, low, ..] = request[..] {
            let key = i16::from_be_bytes([high, low]);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
        broker.write_all(&[&len[..], &request].concat())?;
    }
    Ok(broker.shutdown(Shutdown::Both)?)
}

fn executed(master: &Master, cdc: &Cdc, from: u32) -> Result<()> {
    for number in from..from + 300 {
        master.execute("db0", &[b"set", format!("k{number}").as_bytes(), b"v"]);
    }
    wait::until("everything is acknowledged", LIMIT, || {
        Ok(master.acked("db0") == Some(master.end("db0")))
    })
    .with_context(|| format!("{}\n{}", cdc.says(), cdc.tail()))
}

/// Positions that are read before whoever wrote last is fenced may be passed by that one; positions beside transactions might
/// be those of one that is fenced.
fn fenced_first() -> Result<()> {
    let mut broker = Broker::new(Kind::Kafka)?;
    let witness = Witness::start(broker.address())?;
    broker.set(
        "advertised.listeners",
        &format!("PLAINTEXT://{}", witness.address),
    );
    broker.start()?;
    let master = Master::start(Settings::default())?;
    let mut cdc = Cdc::new("fenced-first", master.port(), &witness.address.to_string())?;
    cdc.set("sink.delivery=exactly_once").set("snapshot.mode=no_data");
    for round in 0..2 {
        witness.seen();
        cdc.start()?;
        cdc.wait_ready()?;
        executed(&master, &cdc, round * 300)?;
        ensure!(cdc.stop()?.success(), "{}", cdc.tail());
        let seen = witness.seen();
        let first = |keys: &[i16]| seen.iter().position(|key| keys.contains(key));
        let (fenced, read) = (first(&[INIT_PRODUCER_ID]), first(&[LIST_OFFSETS, FETCH]));
        ensure!(read.is_some() && fenced.is_some(), "round {round}: {seen:?}");
        ensure!(fenced < read, "round {round}: positions are read first: {seen:?}");
    }
    let log = broker
        .data_dir()
        .join("__pika_port_kafka_offsets-0/00000000000000000000.log");
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.DumpLogSegments")?;
    tool.arg("--files").arg(log);
    let text = process::run(&mut tool, TOOL)?.text();
    let batches = |is: &str| text.lines().filter(|line| line.contains(is)).count();
    ensure!(batches("isTransactional: true") > 2, "{text}");
    ensure!(batches("isTransactional: false") == 0, "{text}");
    Ok(())
}

/// Topics that others may use, and this one may not.
fn not_authorized() -> Result<()> {
    let mut broker = Broker::new(Kind::Kafka)?;
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    broker.set("authorizer.class.name", authorizer);
    broker.set("allow.everyone.if.no.acl.found", "true");
    broker.start()?;
    let master = Master::start(Settings::default())?;
    let mut cdc = Cdc::new("not-authorized", master.port(), &broker.bootstrap())?;
    cdc.set("snapshot.mode=no_data");
    cdc.start()?;
    cdc.wait_ready()?;
    executed(&master, &cdc, 0)?;
    let acl = |change: &str, operation: &str| {
        let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.AclCommand")?;
        tool.args(["--bootstrap-server", &broker.bootstrap(), change, "--force"]);
        tool.args(["--allow-principal", "User:somebody-else"]);
        tool.args(["--operation", operation, "--topic", "pika.not-authorized.binlog"]);
        process::run(&mut tool, TOOL)
    };
    acl("--add", "Write")?;
    master.execute("db0", &[b"set", b"k", b"v"]);
    let before = master.acked("db0");
    let remedy = "; grant this client to describe, write and read the topic";
    let says = |words: &str| {
        wait::until(words, LIMIT, || {
            let said = cdc.says();
            Ok(said.contains(words) && said.contains("TOPIC_AUTHORIZATION_FAILED") && said.contains(remedy))
        })
        .with_context(|| format!("{}\n{}", cdc.says(), cdc.tail()))
    };
    says("sink: cannot write to pika.not-authorized.binlog: ")?;
    ensure!(master.acked("db0") == before, "acknowledged and not written");
    // Nothing has to be started again.
    acl("--remove", "Write")?;
    wait::until("everything is acknowledged", LIMIT, || {
        Ok(master.acked("db0") == Some(master.end("db0")))
    })
    .with_context(|| format!("{}\n{}", cdc.says(), cdc.tail()))?;
    ensure!(cdc.stop()?.success(), "{}", cdc.tail());
    Ok(())
}
