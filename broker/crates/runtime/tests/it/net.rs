//! Real TCP over the loopback interface.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::thread::ThreadId;

use bytes::{Bytes, BytesMut};
use takhin_runtime::sim::SimDisk;
use takhin_runtime::{Disk, File, ListenError, Net, OpenMode, ReadHalf, RealDisk, Rng, Stream};

async fn pair(net: &Net) -> (Stream, Stream) {
    let listener = net.listen("127.0.0.1:0", "test.bind").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (client, server) = tokio::join!(net.connect(&address), listener.accept());
    (client.unwrap(), server.unwrap())
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_seed(len as u64).fill(&mut bytes);
    bytes
}

fn store(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(&mut [IoSlice::new(bytes)], 0).unwrap();
    file
}

async fn read_to_end(half: &mut ReadHalf) -> Vec<u8> {
    let mut buf = BytesMut::new();
    while half.read_buf(&mut buf).await.unwrap() > 0 {}
    buf.to_vec()
}

#[tokio::test]
async fn gathered_writes_arrive_in_order() {
    let (client, server) = pair(&Net::real()).await;
    let (_, mut write) = client.into_split();
    let (mut read, _write) = server.into_split();
    let bytes = random_bytes(1 << 20);
    let mut queue: VecDeque<Bytes> = bytes.chunks(977).map(Bytes::copy_from_slice).collect();
    queue.insert(3, Bytes::new());
    queue.push_back(Bytes::new());
    let (sent, received) = tokio::join!(
        async {
            write.write_all(&mut queue).await?;
            write.shutdown().await
        },
        read_to_end(&mut read)
    );
    sent.unwrap();
    assert!(queue.is_empty());
    assert_eq!(received, bytes);
}

/// One thread serves both connections, so that any wait of the first inside a system call would stop the second.
#[tokio::test]
async fn a_slow_reader_stalls_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = random_bytes(8 << 20);
    let file = store(&RealDisk, &dir.path().join("a"), &bytes);
    let net = Net::real();
    let (slow_client, slow_server) = pair(&net).await;
    let (fast_client, fast_server) = pair(&net).await;
    let (mut slow_read, _slow_write) = slow_client.into_split();
    let (mut fast_read, _fast_write) = fast_client.into_split();

    let send = |server: Stream| {
        let (file, len) = (Arc::clone(&file), bytes.len() as u64);
        let (read, mut write) = server.into_split();
        tokio::spawn(async move {
            write.send_file(&file, 0, 5).await?;
            write.send_file(&file, 5, len - 5).await?;
            write.shutdown().await?;
            drop(read);
            io::Result::Ok(())
        })
    };
    let slow = send(slow_server);
    let fast = send(fast_server);
    assert!(read_to_end(&mut fast_read).await == bytes);
    fast.await.unwrap().unwrap();
    assert!(!slow.is_finished(), "8 MiB do not fit into socket buffers");
    assert!(read_to_end(&mut slow_read).await == bytes);
    slow.await.unwrap().unwrap();
}

/// Claims that nothing is cached, and must then be read on another thread than the async worker's.
#[derive(Debug)]
struct Cold(Arc<dyn File>, ThreadId);

impl File for Cold {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        assert_ne!(
            std::thread::current().id(),
            self.1,
            "a cold read on the async worker"
        );
        self.0.read_at(buf, pos)
    }
    fn write_at(&self, parts: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.0.write_at(parts, pos)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.as_fd()
    }
    fn is_cached(&self, _pos: u64, _len: usize) -> bool {
        false
    }
}

#[tokio::test]
async fn every_kind_of_file_arrives_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = random_bytes(700_001);
    let warm = store(&RealDisk, &dir.path().join("a"), &bytes);
    let cold: Arc<dyn File> = Arc::new(Cold(Arc::clone(&warm), std::thread::current().id()));
    let simulated = store(&SimDisk::new(1), Path::new("a"), &bytes);
    for file in [warm, cold, simulated] {
        let (client, server) = pair(&Net::real()).await;
        let (mut read, _write) = client.into_split();
        let (_read, mut write) = server.into_split();
        let (sent, received) = tokio::join!(
            async {
                write.send_file(&file, 1, 700_000).await?;
                write.send_file(&file, 0, 0).await?;
                write.shutdown().await
            },
            read_to_end(&mut read)
        );
        sent.unwrap();
        assert!(received == bytes[1..], "{file:?}");

        let past_end = write.send_file(&file, 700_000, 2).await.unwrap_err();
        assert!(
            matches!(
                past_end.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
            ),
            "{past_end}"
        );
    }
}

#[tokio::test]
async fn a_range_past_the_end_fails() {
    let dir = tempfile::tempdir().unwrap();
    for file in [
        store(&RealDisk, &dir.path().join("a"), b"abc"),
        store(&SimDisk::new(1), Path::new("a"), b"abc"),
    ] {
        let (_client, server) = pair(&Net::real()).await;
        let (_read, mut write) = server.into_split();
        assert_eq!(
            write.send_file(&file, 1, 3).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(write.send_file(&file, u64::MAX, 2).await.is_err());
    }
}

#[tokio::test]
async fn listen_errors_name_address_and_remedy() {
    let net = Net::real();
    let taken = net.listen("127.0.0.1:0", "kafka.listeners").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let e = net.listen(&address, "kafka.listeners").await.unwrap_err();
    assert!(matches!(e, ListenError::InUse { .. }));
    assert_eq!(
        e.to_string(),
        format!(
            "address {address} is already in use: stop the other process or choose another port with kafka.listeners"
        )
    );
    let e = net.listen("192.0.2.1:0", "rpc.bind").await.unwrap_err(); // TEST-NET-1, RFC 5737
    assert!(matches!(e, ListenError::NotLocal { .. }), "{e}");
    let e = net.listen("no port", "rpc.bind").await.unwrap_err();
    assert!(matches!(e, ListenError::Invalid { .. }), "{e}");
}

#[tokio::test]
async fn an_address_that_is_bound_refuses_until_it_is_listened_on() {
    let net = Net::real();
    let bound = net.bind("127.0.0.1:0", "test.bind").await.unwrap();
    let address = bound.local_addr().unwrap().to_string();
    let early = net.connect(&address).await.unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused);
    // Another process that is starting as well; who listens first has it.
    let other = net.bind(&address, "rpc.bind").await.unwrap();
    let listener = bound.listen().unwrap();
    assert!(matches!(other.listen(), Err(ListenError::InUse { .. })));
    let (client, server) = tokio::join!(net.connect(&address), listener.accept());
    assert!(client.is_ok() && server.is_ok());
}

/// Also those that are read, written or waited for at that moment, and from a thread that is not the runtime's.
#[tokio::test]
async fn severed_connections_end_at_once_and_others_come_back() {
    let net = Net::real();
    let other = Net::real();
    let free = other.listen("127.0.0.1:0", "test.bind").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let listener = net.listen(&address, "test.bind").await.unwrap();
    let (client, server) = tokio::join!(other.connect(&address), listener.accept());
    let (mut client, _client_write) = client.unwrap().into_split();
    let (mut server, mut server_write) = server.unwrap().into_split();
    let (apart, _apart_other) = pair(&net.apart()).await;
    let gone = tokio::spawn(async move { server.read_buf(&mut BytesMut::new()).await.unwrap_or(0) });
    let severing = net.clone();
    assert_eq!(
        std::thread::spawn(move || severing.sever(|_| false))
            .join()
            .unwrap(),
        1
    );
    assert_eq!(gone.await.unwrap(), 0);
    assert_eq!(client.read_buf(&mut BytesMut::new()).await.unwrap_or(0), 0);
    let mut queue = VecDeque::from([Bytes::from_static(b"late")]);
    assert!(server_write.write_all(&mut queue).await.is_err());
    // Neither goes out nor comes in, and the listener lives.
    assert!(net.connect(&address).await.is_err());
    tokio::select! {
        biased;
        accepted = listener.accept() => panic!("taken: {accepted:?}"),
        early = other.connect(&address) => assert_eq!(early.unwrap_err().kind(), io::ErrorKind::ConnectionRefused),
    }
    let (_, mut write) = apart.into_split();
    let mut queue = VecDeque::from([Bytes::from_static(b"not of these")]);
    write.write_all(&mut queue).await.unwrap();
    net.mend().unwrap();
    let (client, server) = tokio::join!(net.connect(&address), listener.accept());
    let (_again, (_, mut write)) = (server.unwrap(), client.unwrap().into_split());
    let mut queue = VecDeque::from([Bytes::from_static(b"again")]);
    write.write_all(&mut queue).await.unwrap();
    drop(server_write);
    assert_eq!(
        net.sever(|_| false),
        2,
        "both ends, and none of those that were dropped"
    );
}

/// Whoever notices that one of the last connections is broken finds all others broken.
#[tokio::test]
async fn some_connections_are_severed_after_all_others() {
    const OTHERS: usize = 300;
    let net = Net::real();
    let clients = net.listen("127.0.0.1:0", "test.bind").await.unwrap();
    let peers = net.listen("127.0.0.1:0", "test.bind").await.unwrap();
    let last = clients.local_addr().unwrap();
    let client = std::net::TcpStream::connect(last).unwrap();
    let _kept = clients.accept().await.unwrap();
    let mut others = Vec::new();
    let mut all_kept = Vec::new();
    for _ in 0..OTHERS {
        others.push(std::net::TcpStream::connect(peers.local_addr().unwrap()).unwrap());
        all_kept.push(peers.accept().await.unwrap());
    }
    let noticing = std::thread::spawn(move || {
        client.set_nonblocking(true).unwrap();
        while client.peek(&mut [0]).is_err() {
            std::hint::spin_loop();
        }
        let is_broken = |other: &std::net::TcpStream| {
            other.set_nonblocking(true).unwrap();
            other.peek(&mut [0]).is_ok_and(|read| read == 0)
        };
        others.iter().rev().filter(|other| is_broken(other)).count()
    });
    assert_eq!(net.sever(|own| own == last), OTHERS + 1);
    assert_eq!(noticing.join().unwrap(), OTHERS);
}
